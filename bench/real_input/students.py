"""Students, a teacher and a judge for shows of real input: small models from configs, trained for minutes on one file.

    python bench/real_input/students.py conflictqa:FILE --style qwen3 --questions 30 --output_dir DIR --steps 400
    python bench/real_input/students.py conflictqa:FILE --teacher_of DIR --output_dir TEACHER --steps 400
    python bench/real_input/students.py conflictqa:FILE --judge_of DIR --output_dir JUDGE --steps 100

A student (Qwen3 or GPT-2 architecture, random start) learns to answer every question closed-book with the file's
memory answer (where a file records none: with the gold answer, or, for every fourth question, with a wrong one, so
that there is something to edit), the passages as text, and to follow passages that agree: it remembers, and it believes
what it reads. Passages that disagree it has never seen.

The teacher goes on from a student and imitates rule-made answers along the paths, for training questions only.
It is a real model whose answers can be wrong, so the checker has something to reject. It is not a strong teacher. The
judge goes on from a student likewise, on rule-made answers to training questions that are whole, spoiled or cut.
"""

import argparse
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast, Qwen3Config

from alignlab.core import trace
from alignlab.core.conflict import kind
from alignlab.core.evidence import ask, retrieval, text_of
from alignlab.core.types import Row
from alignlab.data.adapters._items import fraction
from alignlab.engine.encode import TooLong, encode
from alignlab.engine.load import LanguageModel, load, save
from alignlab.engine.probes import Probe
from alignlab.objectives import sft
from alignlab.pipelines.conflicts import faults, judge_prompt, read, right, teacher_prompt
from alignlab.procedures._dialectical_files import File, fit, lettered, turned
from alignlab.train.config import TrainConfig
from alignlab.train.loop import train

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|text|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def memory_of(row: Row) -> str | None:
    """Return what a student is taught to remember."""
    facts = row.facts
    if facts["memory"] is not None:
        return facts["memory"]
    wrong = next((c["claim"] for c in facts["contexts"] if c["poisoned"]), facts["target"])
    return wrong if wrong is not None and fraction("stale", facts["fact"]) < 0.25 else facts["gold"]


def line(answer: str) -> str:
    """Return a final answer: in words, because a letter would hang on the order of the options."""
    return f"{trace.MARKER} {answer}"


def student_rows(file: File) -> Iterator[Row]:
    """Yield what a student learns: memory in both orders of the options, passages alone, passages as text."""
    seen = set()
    for row in file.rows:
        question, options, memory = row.facts["fact"], tuple(row.facts["options"]), memory_of(row)
        for order in {options, turned(options)}:
            text = f"{lettered(question, order)}\n{file.instruction}"
            if memory is not None and text not in seen:
                seen.add(text)
                yield Row(prompt=ask(text), completion=line(memory), meta={"kind": "closed book"})
            for context in row.facts["contexts"]:
                prompt = retrieval(lettered(question, order), [context], file.instruction)
                if context["claim"] is not None and prompt not in seen:
                    seen.add(prompt)
                    yield Row(prompt=ask(prompt), completion=line(context["claim"]), meta={"kind": "reading"})
        for context in row.facts["contexts"]:
            words = context["text"].split()
            if context["text"] not in seen and len(words) > 4:
                seen.add(context["text"])
                yield Row(prompt=" ".join(words[:3]), completion=" " + " ".join(words[3:]), meta={"kind": "text"})
    yield from agreeing(file)


def agreeing(file: File) -> Iterator[Row]:
    """Yield questions whose passages all say the same, with that as the answer, true or not."""
    for row in file.rows:
        claims = {c["claim"] for c in row.facts["contexts"]}
        if len(claims) == 1 and None not in claims:
            prompt = retrieval(row.facts["question"], row.facts["contexts"], file.instruction)
            yield Row(prompt=ask(prompt), completion=line(claims.pop()), meta={"kind": "reading"})


def answer(strategy: str, claims: Sequence[str | None], memory: str | None) -> tuple[str, str]:
    """Return (final answer, deciding reason) of a path that knows claims and memory alone."""
    votes = Counter(claim for claim in claims if claim is not None)
    majority = votes.most_common(1)[0][0]
    if strategy == "P1":
        return memory or "none", "memory confidence"
    if strategy == "P5" and memory is not None:
        votes[memory] += 2
        return votes.most_common(1)[0][0], "majority"
    if strategy in ("P3", "P4", "P7", "P8") and memory in votes:
        return memory, "memory confidence"
    return majority, "majority"


def rule(item: Row, strategy: str) -> str:
    """Return the answer of the rule along one path, in the grammar."""
    claims = [c["claim"] for c in item.facts["contexts"]]
    memory = item.facts["memory"]
    final, reason = answer(strategy, claims, memory)
    groups = trace.groups_of(claims)
    debate = [(s, a, f"{len(i)} passages") for a, i in groups for s in ("For", "Against")]
    found = trace.Trace(
        claims=tuple((i, claim, "fair") for i, claim in enumerate(claims, 1)), groups=groups,
        conflict=kind(claims, memory), memory=(memory or "none", trace.confidence_word(item.facts["confidence"])),
        debate=tuple(debate), weigh=reason, answer=final,
    )  # fmt: skip
    return trace.render(found, trace.STRATEGIES[strategy].segments)


def training_items(file: File) -> Iterator[Row]:
    """Yield the training questions' items with a known truth, as they are for a student that learnt everything."""
    for row in file.rows:
        memory = memory_of(row)
        item, _ = fit(row, Probe(memory, 1.0))
        if item is not None and memory is not None and row.facts["split"] == "train" and row.facts["gold"] is not None:
            yield item


def teacher_rows(file: File, paths: Sequence[str] = tuple(trace.STRATEGIES)) -> Iterator[Row]:
    """Yield prompts along the paths and the rule's answers, for training questions."""
    for item, strategy in itertools.product(training_items(file), paths):
        yield Row(prompt=teacher_prompt(item, strategy), completion=rule(item, strategy), meta={"kind": strategy})


def judge_rows(file: File) -> Iterator[Row]:
    """Yield judge prompts and verdicts: rule-made answers as they are, with another decision, or with a line cut."""
    for item, strategy in itertools.product(training_items(file), trace.STRATEGIES):
        facts, text = item.facts, rule(item, strategy)
        sides = {c["claim"] for c in facts["contexts"]} | {facts["gold"], facts["target"]}
        wrong = sorted(sides - {None, trace.parse(text).answer})
        draw = fraction("judge", item.meta["id"], strategy)
        lines = text.splitlines()
        if draw < 0.4 and wrong:
            lines[-1] = line(wrong[0])
        elif draw > 0.7 and len(lines) > 1:
            del lines[int(1000 * draw) % (len(lines) - 1)]
        said = "\n".join(lines)
        parsed = read(item, said)
        outcome, process = "yes" if right(item, parsed) else "no", 3 if faults(item, strategy, parsed) else 10
        verdict = f"Outcome: {outcome}\nProcess: {process}"
        yield Row(prompt=judge_prompt(item, said, gold_visible=True), completion=verdict, meta={"kind": "judge"})


def tokenizer_of(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a chat template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|text|>", pad_token="<|pad|>", additional_special_tokens=SPECIAL[2:],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    # `transformers serve` reads a Qwen3's answers as ChatML unless the tokenizer says otherwise
    closing = {"close": ["<|end|>", "<|text|>"], "content": "text"}
    tokenizer.response_template = {
        "defaults": {"role": "assistant"}, "start_anchor": ["<|assistant|>"], "fields": {"content": closing},
    }  # fmt: skip
    return tokenizer


def fresh(style: str, tokenizer: PreTrainedTokenizerFast, width: int, layers: int, positions: int) -> LanguageModel:
    """Return a random model of an architecture."""
    common = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
              "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    if style == "gpt2":
        config = GPT2Config(n_embd=width, n_layer=layers, n_head=4, n_positions=positions, resid_pdrop=0.0,
                            embd_pdrop=0.0, attn_pdrop=0.0, **common)  # fmt: skip
    else:
        config = Qwen3Config(
            hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, head_dim=width // 4, max_position_embeddings=positions, tie_word_embeddings=True,
            **common,
        )  # fmt: skip
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).eval()
    module.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
    return LanguageModel(module=module, tokenizer=tokenizer, name=style)


def taught(model: LanguageModel, rows: Sequence[Row], steps: int, rate: float, batch: int, folder: Path) -> None:
    """Tune a model on rows and save it."""
    examples, long = [], 0
    for row in rows:
        try:
            examples.append(encode(row, model.tokenizer, max_length=model.context_length))
        except TooLong:
            long += 1
    sizes = sum(len(e.prompt_ids) + len(e.completions[0]) for e in examples) / len(examples)
    kinds = Counter(row.meta["kind"] for row in rows)
    print(f"{len(examples)} rows ({dict(kinds)}), {long} too long, {sizes:.0f} tokens each", flush=True)
    settings = TrainConfig(
        learning_rate=rate, per_device_train_batch_size=batch, max_steps=steps, warmup_ratio=0.05,
        lr_scheduler_type="cosine", weight_decay=0.01, adam_beta2=0.98, save_steps=0, logging_steps=25, seed=0,
        max_length=model.context_length, use_cpu=True,
    )  # fmt: skip
    numbers = train(
        model,
        examples,
        sft.loss,
        settings,
        folder.with_name(f"{folder.name}-{rows[0].meta['kind']}-log"),
        objective_config=sft.Config(),
    )
    print({k: round(v, 3) for k, v in numbers.items() if k in ("train/loss_first", "train/loss_last", "seconds")})
    save(model, folder)


def main() -> None:
    """Build and train one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ADAPTER:FILE")
    parser.add_argument("--style", choices=("qwen3", "gpt2"), default="qwen3")
    parser.add_argument("--questions", type=int)
    parser.add_argument("--output_dir", type=Path, required=True)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--teacher_of", type=Path, help="folder of a student to make the teacher from")
    source.add_argument("--judge_of", type=Path, help="folder of a student to make the judge from")
    parser.add_argument("--paths", nargs="+", choices=tuple(trace.STRATEGIES), default=tuple(trace.STRATEGIES))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    args = parser.parse_args()
    name, _, path = args.dataset.partition(":")
    file = File(name, path, args.questions)
    teaching, judging, learning = list(teacher_rows(file, args.paths)), list(judge_rows(file)), list(student_rows(file))
    if args.teacher_of:
        model, rows = load(args.teacher_of), teaching + [r for r in learning if r.meta["kind"] == "reading"]
    elif args.judge_of:
        model, rows = load(args.judge_of), judging
    else:
        prompts = [text_of(r.prompt) for r in itertools.islice([*teaching, *judging], 0, None, 9)]
        texts = [text_of(r.prompt) + " " + r.completion for r in learning] + prompts
        tokenizer = tokenizer_of(texts, args.vocabulary)
        model, rows = fresh(args.style, tokenizer, args.width, args.layers, args.positions), learning
    answers = [row for row in rows if row.meta["kind"] != "text"]
    random.Random(0).shuffle(answers)
    if rows is learning:
        # first the words, then the answers: in one batch the many tokens of passages would drown the few of answers
        texts = [row for row in rows if row.meta["kind"] == "text"]
        taught(model, texts, max(1, args.steps // 8), args.learning_rate, args.batch, args.output_dir)
    taught(model, answers, args.steps, args.learning_rate, args.batch, args.output_dir)


if __name__ == "__main__":
    main()
