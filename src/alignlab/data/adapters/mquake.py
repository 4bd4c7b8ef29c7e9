"""MQuAKE: edited facts, as items where the context is right and memory is stale (in-context knowledge editing).

From the published format (princeton-nlp/MQuAKE, MIT; Zhong et al. 2023, arXiv 2305.14795): a JSON array of cases with
`case_id, requested_rewrite, questions, answer, answer_alias, new_answer, new_answer_alias, single_hops,
new_single_hops`; a rewrite is `{prompt, relation_id, target_new: {str, id}, target_true: {str, id}, subject,
question}`, its `prompt` a cloze with `{}` for the subject. MQuAKE-T holds real updates over time, MQuAKE-CF invented
ones. The sentences around the edited fact are ours.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong

from ._items import conflict_item, passage, shuffled

SOURCE, LICENCE = "mquake", "MIT"
STATEMENTS = (
    "{fact}.",
    "An updated record reads: {fact}.",
    "{fact}, as was reported since.",
    "Correction to earlier editions: {fact}.",
    'Asked "{question}", the current entry says {answer}.',
)


def _target(rewrite: dict[str, Any], name: str, where: str) -> str:
    value = rewrite.get(name)
    value = value.get("str") if isinstance(value, dict) else value
    return text_of({name: value}, name, where).strip()


def _rewrites(case: dict[str, Any], where: str) -> list[dict[str, str]]:
    rewrites = case.get("requested_rewrite")
    if not isinstance(rewrites, list) or not rewrites or not all(isinstance(r, dict) for r in rewrites):
        raise wrong(where, "requested_rewrite", "a list of rewrites", rewrites)
    found = []
    for number, rewrite in enumerate(rewrites):
        place = f"{where}: requested_rewrite[{number}]"
        cloze = text_of(rewrite, "prompt", place)
        if cloze.count("{}") != 1:
            raise wrong(place, "prompt", "a cloze with one {} for the subject", cloze)
        new, old = _target(rewrite, "target_new", place), _target(rewrite, "target_true", place)
        fact = f"{cloze.replace('{}', text_of(rewrite, 'subject', place)).strip()} {new}"
        question = text_of(rewrite, "question", place).strip()
        found.append({"fact": fact[0].upper() + fact[1:], "question": question, "new": new, "old": old})
    return found


def _single(case: dict[str, Any], rewrites: list[dict[str, str]], counts: Sequence[int]) -> Iterator[Row]:
    for number, edit in enumerate(rewrites):
        if edit["new"].lower() == edit["old"].lower():
            continue  # nothing changed, so nothing to edit
        for count in counts:
            key = (str(case.get("case_id")), str(number), str(count))
            chosen = shuffled(STATEMENTS[1:], *key)[: count - 1]
            texts = [s.format(fact=edit["fact"], question=edit["question"], answer=edit["new"]) for s in chosen]
            contexts = [passage(text, edit["new"], poisoned=False) for text in (f"{edit['fact']}.", *texts)]
            yield conflict_item(
                id=f"{SOURCE}-{key[0]}-{number}-n{count}", source=SOURCE, licence=LICENCE, question=edit["question"],
                scenario="ike", k=count, contexts=shuffled(contexts, *key, "order"), memory=edit["old"],
                gold=edit["new"], facts={"hops": 1},
            )  # fmt: skip


def _multi(case: dict[str, Any], rewrites: list[dict[str, str]], where: str) -> Iterator[Row]:
    questions = case.get("questions")
    if not isinstance(questions, list) or not questions or not all(isinstance(q, str) and q.strip() for q in questions):
        raise wrong(where, "questions", "a list of texts", questions)
    new, old = text_of(case, "new_answer", where).strip(), text_of(case, "answer", where).strip()
    hops = len(case.get("new_single_hops") or ()) or None
    for number, question in enumerate(questions):
        key = (str(case.get("case_id")), "m", str(number))
        # an edited hop is evidence for the answer without stating it, so it makes no claim about this question
        contexts = [passage(f"{edit['fact']}.", None, poisoned=False) for edit in rewrites]
        yield conflict_item(
            id=f"{SOURCE}-{key[0]}-m{number}", source=SOURCE, licence=LICENCE, question=question.strip(),
            scenario="ike", k=len(contexts), contexts=shuffled(contexts, *key), memory=old, gold=new,
            facts={"hops": hops, "aliases": list(case.get("new_answer_alias") or ())},
        )  # fmt: skip


def items(
    path: str | Path, contexts: Sequence[int] = (1, 3, 5), *, hops: Literal["single", "multi"] = "single"
) -> Iterator[Row]:
    """Yield `ike` items: `memory` is the answer before the edit, `gold` the one after it, no context is poisoned.

    Args:
        path: a published file, or one of its format.
        contexts: for single hops, how many passages state the edit (1 to 5, in different wordings).
        hops: `single` asks the edited fact itself, once however many cases edit it the same way; `multi` asks the
            case's chained questions, with one passage per edited fact.

    Raises:
        DataError: naming the file, the case, the field, what was expected and what was found.
    """
    if not all(1 <= n <= len(STATEMENTS) for n in contexts):
        raise DataError(f"contexts: expected numbers from 1 to {len(STATEMENTS)}, got {list(contexts)}")
    seen: set[tuple[str, str]] = set()
    for where, case in sources.json_objects(path):
        rewrites = _rewrites(case, where)
        if hops == "multi":
            yield from _multi(case, rewrites, where)
            continue
        fresh = [edit for edit in rewrites if (edit["question"], edit["new"]) not in seen]
        seen.update((edit["question"], edit["new"]) for edit in fresh)
        yield from _single(case, fresh, contexts)
