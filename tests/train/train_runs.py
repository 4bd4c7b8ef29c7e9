"""Small models, random examples and whole runs for the tests of training; as a script, runs that are killed or spread.

`python train_runs.py ddp FOLDER`, `... kill FOLDER MOMENTS SEED` and `... save FOLDER`
import everything once, then fork.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from alignlab.core import files
from alignlab.engine.encode import Example
from alignlab.engine.load import LanguageModel, load
from alignlab.engine.sharded import whole
from alignlab.objectives import bco, cut, dpo, kto, sft
from alignlab.train import checkpoint, loop
from alignlab.train.config import TrainConfig
from alignlab.train.log import read

sys.path.insert(0, str(Path(__file__).parent.parent))
import theorem
import tiny_models

END = 2
SETTINGS = ("bf16", "gradient_checkpointing", "disable_dropout", "ref_cache", "fsdp")


def small(
    seed: int = 0, dtype: torch.dtype = torch.float32, architecture: str = "llama", *, reward: bool = False
) -> LanguageModel:
    """A model of 0.1M parameters whose distributions are not far from uniform, so that gradients are tame."""
    tokenizer = tiny_models.make_tokenizer()
    options = {"positions": 64, "seed": seed, "scale": 2.0, "reward": reward}
    module = tiny_models.make_module(architecture, len(tokenizer), **options).to(dtype)
    return LanguageModel(module=module, tokenizer=tokenizer, name="tests/small")


def some(n: int, *, pairs: bool, seed: int = 0) -> list[Example]:
    """Random examples of uneven lengths; pairs with soft labels and weights."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(6, 300) for _ in range(draw.randint(low, high))]

    found = []
    for number in range(n):
        completions = tuple([*ids(1, 11), END] for _ in range(2 if pairs else 1))
        pair = (0, 1, draw.uniform(0.7, 1.0), 0.0, draw.uniform(0.5, 2.0))
        found.append(
            Example(prompt_ids=ids(1, 9), completions=completions, pairs=(pair,) if pairs else (), row_id=str(number))
        )
    return found


def gradients(model, examples, loss, objective, folder, *, size=12, per_device=4, after=None, **options):
    """Gradients of one optimiser step over `size` examples before clipping, as train() itself computes them.

    `after` looks at the model then.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    cfg = TrainConfig(
        per_device_train_batch_size=per_device, gradient_accumulation_steps=size // (per_device * ranks), max_steps=1,
        learning_rate=0.0, max_grad_norm=0.0, save_steps=0, use_cpu=options.pop("use_cpu", True), seed=3,
        **{key: options.pop(key) for key in SETTINGS if key in options},
    )  # fmt: skip
    found = {}

    def keep(_step, record):
        found.update({name: whole(p.grad.detach()).clone() for name, p in checkpoint.trained(model).items()})
        found["record"] = record
        if after is not None:
            after(model)

    loop.train(model, examples, loss, cfg, Path(folder), objective_config=objective, on_step=keep, **options)
    return found


def assert_close(found, expected, tolerance):
    """Largest difference over all parameters, relative to the norm of the whole gradient."""
    names = [name for name in expected if name != "record"]
    assert set(names) == set(found) - {"record"}
    norm = torch.cat([expected[name].flatten() for name in names]).norm()
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in names]).norm()
    assert norm > 0
    assert difference <= tolerance * norm, f"relative difference {(difference / norm).item():.2e}"


def run(folder: Path, *, on_step=None, steps: int = 12, **settings) -> dict[str, float]:
    """A whole DPO run with dropout; the random state matters, the reference is the model as it came."""
    model = small()
    model.module.config.attention_dropout = 0.1
    for part in model.module.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.1
    cfg = TrainConfig(**{
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": steps, "learning_rate": 1e-3,
        "warmup_ratio": 0.2, "lr_scheduler_type": "cosine", "save_steps": 3, "logging_steps": 5, "use_cpu": True,
        "weight_decay": 0.1, "disable_dropout": False, "max_grad_norm": 0.5, **settings,
    })  # fmt: skip
    result = loop.train(
        model, some(14, pairs=True), dpo.loss, cfg, folder, objective_config=dpo.Config(nll_weight=0.1),
        on_step=on_step, eval_examples=some(5, pairs=True, seed=9),
    )  # fmt: skip
    return {name: value for name, value in result.items() if name not in TIMES}


TIMES = ("seconds", "tokens_per_second")


def outcome(folder: Path):
    """Everything of a finished run that must not depend on interruptions, with the bits of all tensors."""
    last = checkpoint.newest(folder)
    tensors = {name: (folder / last.name / name).read_bytes() for name in ("model.safetensors", checkpoint.TENSORS)}
    records = [{k: v for k, v in record.items() if k not in TIMES} for record in read(folder / "metrics.jsonl")]
    return last.name, tensors, records


def check_whole(folder: Path) -> int:
    """Every visible checkpoint can be gone on from and loaded as a model; returns how many there are."""
    found = checkpoint.checkpoints(folder)
    for each in found:
        state = checkpoint.read_state(each)
        assert each.name == f"checkpoint-{state['step']}"
        model = load(str(each), device="cpu")
        checkpoint.load(each, model, torch.optim.AdamW(checkpoint.trained(model).values()))
    return len(found)


def forked(action) -> int:
    """Start `action` in a child process; return its id."""
    child = os.fork()
    if child:
        return child
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Wait for a child; 0 or the exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm(folder: Path) -> None:
    """Import here what a run imports on its way, so that no child has to; autograd must not run before a fork."""

    def whole() -> None:
        run(folder / "warm", steps=3)
        check_whole(folder / "warm")
        (folder / "modules").write_text("\n".join(sys.modules))

    assert ended(forked(whole)) == 0
    for name in (folder / "modules").read_text().split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    checkpoint.save_model(small(), folder / "model")
    load(str(folder / "model"), device="cpu")


def kill_at_random(folder: Path, moments: int, seed: int) -> None:
    """Kill runs at random moments, each going on from what the last one left; compare with a run that was let alone."""
    draw, kills, finished = random.Random(seed), 0, 0
    files._sync = lambda path: (
        None
    )  # a killed process loses nothing that it wrote; waiting for the disk only takes time
    began = time.monotonic()
    assert ended(forked(lambda: run(folder / "alone", save_total_limit=2))) == 0
    took = time.monotonic() - began
    expected = outcome(folder / "alone")
    while kills < moments or not finished:
        target = folder / f"killed-{finished}"
        child = forked(lambda at=target: run(at, save_total_limit=2, resume_from_checkpoint=True))
        if kills < moments:
            time.sleep(draw.uniform(0.0, took))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in (0, -signal.SIGKILL), code
        kills += code != 0
        assert ended(forked(lambda at=target: check_whole(at) if at.exists() else None)) == 0
        if code == 0:
            assert outcome(target) == expected, "a killed run went on to other bits"
            finished += 1
    print(json.dumps({"kills": kills, "finished": finished}))


def kill_inside_a_save(folder: Path) -> None:
    """Kill a run at each stage of writing, replacing and deleting checkpoints; then let it go on."""
    assert ended(forked(lambda: run(folder / "alone", save_total_limit=1))) == 0
    expected, sync = outcome(folder / "alone"), files._sync
    stages = [
        (checkpoint, "save_model"), (checkpoint, "save_file"), (checkpoint, "write_json"), (files, "_sync"),
        (files.os, "replace"), (checkpoint.shutil, "rmtree"), (checkpoint, "prune"),
    ]  # fmt: skip
    kinds = [(place, name, after) for place, name in stages for after in (False, True)]
    for number, (place, name, after) in enumerate(kinds):
        target = folder / f"stage-{number}"

        def killed(place=place, name=name, after=after, target=target):
            if name != "_sync":
                files._sync = lambda path: None
            inner = getattr(place, name)

            def hooked(*args, **kwargs):
                # from the second save on: there is an older checkpoint to keep
                armed = (target / "checkpoint-3").exists()
                if armed and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                value = inner(*args, **kwargs)
                if armed:
                    os.kill(os.getpid(), signal.SIGKILL)
                return value

            setattr(place, name, hooked)
            run(target, save_total_limit=1)

        assert ended(forked(killed)) == -signal.SIGKILL, (name, after)
        assert ended(forked(lambda at=target: check_whole(at))) == 0
        assert checkpoint.checkpoints(target), (name, after)
        files._sync = lambda path: None
        assert ended(forked(lambda at=target: run(at, save_total_limit=1, resume_from_checkpoint=True))) == 0
        files._sync = sync
        assert outcome(target) == expected, (name, after)
        assert not list(target.glob(".*partial")), "what the killed run left is swept away"
    print(json.dumps({"stages": len(kinds)}))


def two_ranks(folder: Path) -> None:
    """Compute gradients of several objectives on two gloo ranks, and save those of rank 0."""

    def rank(number: int) -> None:
        os.environ |= {
            "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ["TEST_PORT"], "ACCELERATE_USE_CPU": "1",
        }  # fmt: skip
        seen = []
        made = loop.Stepper.__init__

        def noted(self, *args, **kwargs):
            made(self, *args, **kwargs)
            seen.append((type(self.scorer).__name__, self.ranks, torch.distributed.get_backend()))

        loop.Stepper.__init__ = noted
        results = {}
        for name, (examples, loss, config, options) in every_case().items():
            # in one micro-batch per rank, statistics and loss share a forward pass
            size = 6 if name in ("tests/kto", "tests/bco") else 2
            found = gradients(model_of(name), examples, loss, config, folder / name, per_device=size, **options)
            results[name] = found
        whole = eight_rows_a_step(folder / "run", accumulation=2)
        assert seen == [("DistributedDataParallel", 2, "gloo")] * len(seen)
        assert len(seen) == len(results) + 1
        torch.save((results, whole), folder / f"rank-{number}.pt")
        torch.distributed.destroy_process_group()

    children = [forked(lambda n=n: rank(n)) for n in range(2)]
    assert [ended(child) for child in children] == [0, 0]


def eight_rows_a_step(folder: Path, *, accumulation: int, **settings) -> dict[str, float]:
    """A short run that one rank (accumulation 4) or two (2) can do."""
    cfg = TrainConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=accumulation, max_steps=6, save_steps=3,
        learning_rate=1e-3, logging_steps=2, use_cpu=True, **settings,
    )  # fmt: skip
    return loop.train(
        small(), some(14, pairs=True), dpo.loss, cfg, folder, objective_config=dpo.Config(),
        eval_examples=some(5, pairs=True, seed=9),
    )  # fmt: skip


def cases():
    """Name -> examples, loss, settings, options: what the gradient tests and the ranks agree to compute."""
    mixed = dpo.Config(beta=0.3, nll_weight=0.5, form="per_token")
    thumbs = [dataclasses.replace(e, labels=(i % 3 > 0,)) for i, e in enumerate(some(12, pairs=False, seed=4))]
    judged = [
        dataclasses.replace(e, contexts={"judgement": e.prompt_ids + [9, 8]} if i % 3 else {})
        for i, e in enumerate(thumbs)
    ]
    return {
        "sft": (some(12, pairs=False), sft.loss, sft.Config(), {}),
        "sequence_mean": (some(12, pairs=False), sft.loss, sft.Config(form="sequence_mean"), {}),
        "dpo": (some(12, pairs=True), dpo.loss, mixed, {"reference": small(1)}),
        "shifted": (thumbs, shifted_loss, None, {"stats": shift, "reference": small(1)}),
        "kto": (thumbs, kto.loss, kto.Config(), {"stats": kto.stats, "needs": kto.CARD.needs, "reference": small(1)}),
        "bco": (thumbs, bco.loss, bco.Config(), {"stats": bco.stats, "settle": bco.settle, "reference": small(1)}),
        "cut": (judged, cut.loss, cut.Config(), {"needs": cut.CARD.needs}),
        "uneven": (some(7, pairs=True), dpo.loss, dpo.Config(beta=0.3), {"reference": small(1)}),
    }  # fmt: skip


PRECISIONS = {"float32": 1e-5, "float64": 1e-9}
"""dtype -> largest relative difference between gradients that are one and the same"""


def every_case():
    """The cases, and the methods of the registry as `name/dtype`."""
    import every_objective

    registry = {}
    for name in every_objective.NAMES:
        for dtype in PRECISIONS:
            c = every_objective.case(name, getattr(torch, dtype))
            registry[f"{name}/{dtype}"] = (c.examples, c.module.loss, c.config, c.options())
    return {f"tests/{name}": each for name, each in cases().items()} | registry


def model_of(name: str) -> LanguageModel:
    """The policy of a case: a method of the registry may ask for several output heads, or for a reward head."""
    import every_objective

    method, dtype = name.split("/")
    return small() if method == "tests" else every_objective.case(method, getattr(torch, dtype)).model()


def log_ratio(batch):
    """Summed log-ratio to the reference per completion."""
    from alignlab.core.masks import seq_sum

    return seq_sum(batch.views["policy"].logp, batch.mask) - seq_sum(batch.views["ref"].logp, batch.mask)


def shift(batch, _cfg):
    """A batch statistic in two parts: the mean log-ratio of liked completions, and of disliked ones."""
    from alignlab.core.types import Term

    ratio, liked = log_ratio(batch), batch.label
    return (
        Term(name="liked", num=ratio * liked, den=liked.float()),
        Term(name="disliked", num=ratio * ~liked, den=(~liked).float()),
    )


def shifted_loss(batch, _cfg, values):
    """A loss around a statistic of the whole step, as KTO's and BCO's."""
    from alignlab.core.types import Term

    centre = 0.5 * (values.get("liked", 0.0) + values.get("disliked", 0.0))
    sign = torch.where(batch.label, 1.0, -1.0)
    loss = torch.nn.functional.softplus(-0.2 * sign * (log_ratio(batch) - centre))
    return (Term(name="shifted", num=loss, den=torch.ones(len(loss))),)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    mode, place = sys.argv[1], Path(sys.argv[2])
    theorem.watch(dpo)
    warm(place)
    if mode == "kill":
        kill_at_random(place, int(sys.argv[3]), int(sys.argv[4]))
    elif mode == "save":
        kill_inside_a_save(place)
    else:
        two_ranks(place)
