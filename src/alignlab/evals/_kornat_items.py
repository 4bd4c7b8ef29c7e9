"""The items of a national survey: from a file, from the world's nation, and the town's knowledge questions."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.core.types import Row
from alignlab.data import sources
from alignlab.data.columns import DataError, text_of, wrong
from alignlab.stats import survey
from alignlab.world import facts, grammar, opinions

TRIM = (1 / 3, 3.0)
Census = Mapping[str, float] | Mapping[str, Mapping[str, float]]
"""stratum -> share of the population, or margins: variable -> value -> share, for strata named `value|value`"""


def options(item: Row) -> tuple[str, ...]:
    """Return an item's options, in their own order; five agreeing ones where it names none."""
    found = item.facts.get("options", opinions.OPTIONS)
    if not isinstance(found, (list, tuple)) or len(found) < 2 or not all(isinstance(o, str) and o for o in found):
        raise wrong(f"item {item.meta.get('id')}", "options", "a list of at least two texts", found)
    return tuple(found)


def shares(item: Row, count: int) -> tuple[float, ...]:
    """Return the population's shares of an item."""
    return _distribution(item.facts.get("shares"), "shares", count, f"item {item.meta.get('id')}")


def probabilities(item: Row, count: int) -> tuple[float, ...] | None:
    """Return the model's own chances of the options where a row brings them."""
    found = item.facts.get("probabilities")
    return None if found is None else _distribution(found, "probabilities", count, f"item {item.meta.get('id')}")


def _distribution(values: Any, field: str, count: int, where: str) -> tuple[float, ...]:
    fine = isinstance(values, (list, tuple)) and len(values) == count
    fine = fine and all(isinstance(v, (int, float)) and not isinstance(v, bool) and v >= 0 for v in values)
    if not fine or not 0.98 <= sum(values) <= 1.02:
        raise wrong(where, field, f"{count} shares that sum to 1", values)
    return tuple(v / sum(values) for v in values)


def size(item: Row) -> float | None:
    """Return how many equal-weight answers the shares of an item rest on, where it says so."""
    found = item.facts.get("n_eff", item.facts.get("n_answers"))
    if found is None:
        return None
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not found > 0:
        raise wrong(f"item {item.meta.get('id')}", "n_eff", "a number above 0", found)
    return float(found)


def gold(item: Row, shown: Sequence[str]) -> int:
    """Return the place of the right option: given as its text, or as its place counted from 0."""
    found = item.facts["gold"]
    if isinstance(found, str) and found in shown:
        return shown.index(found)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < len(shown):
        return found
    raise wrong(f"item {item.meta.get('id')}", "gold", "one of the options, or its place from 0", found)


def strata(item: Row, count: int) -> dict[str, tuple[float, ...]]:
    """Return the shares of each stratum of the population, empty where they are not known."""
    found = item.facts.get("by_stratum") or {}
    if not isinstance(found, Mapping):
        raise wrong(f"item {item.meta.get('id')}", "by_stratum", "an object stratum -> shares", found)
    return {name: _distribution(row, "by_stratum", count, f"item {item.meta.get('id')}") for name, row in found.items()}


def of_counts(counts: Mapping[str, Sequence[float]], census: Census | None, trim: bool) -> dict[str, Any]:
    """Return shares and effective size from counts by stratum, weighted to the census where there is one.

    The shares of each stratum stay as they were counted: noise of small strata is among what they differ by.
    """
    sizes = {name: float(sum(row)) for name, row in counts.items()}
    limits = TRIM if trim else None
    if census is None:
        weights = dict.fromkeys(counts, 1.0)
    elif margins := {name: values for name, values in census.items() if isinstance(values, Mapping)}:
        weights = _raked(margins, sizes, limits)
    else:
        weights = survey.weights(census, sizes, trim=limits)  # type: ignore[arg-type]
    found = survey.weighted(counts, weights)
    own = {name: [float(v) / sizes[name] for v in row] for name, row in counts.items() if sizes[name] > 0}
    return {"shares": list(found.values), "n_eff": found.n_eff, "n_answers": found.n, "by_stratum": own}


def _raked(
    margins: Mapping[str, Mapping[str, float]], sizes: Mapping[str, float], limits: tuple[float, float] | None
) -> dict[str, float]:
    """Return stratum -> weight under which every margin meets the census; strata are named `value|value`."""
    parts = {name: name.split("|") for name in sizes}
    for name, values in parts.items():
        if len(values) != len(margins):
            raise ValueError(
                f"stratum {name!r}: the census has margins of {', '.join(margins)}, so a stratum is named by "
                f"{len(margins)} values with | between them"
            )
    cells = {variable: [values[i] for values in parts.values()] for i, variable in enumerate(margins)}
    found = survey.rake(cells, margins, list(sizes.values()), trim=limits)
    return dict(zip(sizes, found.tolist()))


def from_file(path: str, census: Census | None, *, trim: bool) -> list[Row]:
    """Return the items of a JSONL file.

    Fields: `question`, `options`; social items `shares` (and `n_eff` or `n_answers`) or `counts` (stratum -> count per
    option); knowledge items `answer`, the right option. Also read: `item_id`, `topic` or `domain`, `subject`, and
    `by_stratum` (stratum -> shares), what people differ by.

    Raises:
        DataError: naming the file, the line, the field, what was expected and what was found.
    """
    found = []
    for number, (where, record) in enumerate(sources.records(path, split=None, limit=None)):
        question = text_of(record, "question", where)
        known: dict[str, Any] = {
            key: record[key] for key in ("options", "n_eff", "n_answers", "shares", "by_stratum") if key in record
        }
        known["topic"] = str(record.get("topic") or record.get("domain") or record.get("subject") or "")
        if "answer" in record:
            known["gold"] = record["answer"]
        elif "counts" in record:
            try:
                known |= of_counts(record["counts"], census, trim)
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise DataError(f"{where}: field 'counts': {error}") from None
        row = Row(prompt=question, facts=known, meta={"id": str(record.get("item_id", number)), "source": path})
        try:
            shown = options(row)
            _ = gold(row, shown) if "gold" in known else shares(row, len(shown))
            size(row)
            strata(row, len(shown))
        except DataError as error:
            raise DataError(f"{where}: {str(error).partition(': ')[2]}") from None
        found.append(row)
    if not found:
        raise DataError(f"{path}: no items in it; give one per line")
    return found


def nation(count: int, seed: int, *, trim: bool) -> list[Row]:
    """Return the world's social items with the shares of a survey of it, weighted to the census.

    `facts["truth"]` are the population's shares, `facts["raw"]` the survey's without weights, `facts["by_stratum"]`
    those of the strata themselves.
    """
    listed = opinions.items(count, seed)
    found = []
    for item, counts in zip(listed, opinions.survey(listed, seed=seed)):
        known = of_counts(counts, opinions.STRATA, trim)
        raw = of_counts(counts, None, False)["shares"]
        truth = [float(v) for v in item.shares]
        known |= {"options": list(opinions.OPTIONS), "topic": item.topic, "truth": truth, "raw": raw}
        known["by_stratum"] = {name: list(row) for name, row in item.by_stratum.items()}
        found.append(Row(prompt=item.text, facts=known, meta={"id": f"nation-{seed}-{item.number}", "source": "world"}))
    return found


def knowledge(count: int, seed: int) -> list[Row]:
    """Return questions on facts that the town writes about often, each with four options in the town's answer form."""
    draw = random.Random(f"local facts:{seed}")
    often = [fact for fact in facts.town().facts.values() if fact.frequency >= 16]
    found = []
    for fact in draw.sample(often, k=min(count, len(often))):
        relation = facts.RELATIONS[fact.relation]
        values = [fact.value, *draw.sample([v for v in relation.values if v != fact.value], k=3)]
        draw.shuffle(values)
        known = {
            "options": [grammar.ANSWER.format(v) for v in values], "gold": values.index(fact.value), "plain": True,
            "topic": fact.relation,
        }  # fmt: skip
        found.append(Row(prompt=grammar.question(fact), facts=known, meta={"id": f"fact-{fact.id}", "source": "world"}))
    return found
