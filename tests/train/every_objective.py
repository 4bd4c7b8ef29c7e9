"""Every objective and trained reward as a training run on a small model: its card's smoke command gives rows, settings.

So a new one is checked without a line here: its own data set, its own flags, its `encode`, `annotate`, `stats`,
`settle` and teachers, on random tokens of uneven lengths with soft labels and weights. Its forms, the values of its
settings' Literal fields, are found there too.
"""

import dataclasses
import functools
import itertools
import random
import shlex
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import train_runs as runs

from alignlab import world
from alignlab.cli import checks, flags, verbs
from alignlab.cli import runs as commands
from alignlab.engine import routed
from alignlab.engine.encode import Example, encode
from alignlab.engine.load import LanguageModel
from alignlab.engine.teachers import annotated
from alignlab.train import loop
from alignlab.train.config import TrainConfig

NAMES = tuple(checks.methods())
Form = tuple[tuple[str, Any], ...]
"""settings other than the smoke command's"""
DEFAULT: Form = ()
SHOWING = {
    "weak_to_strong": {"rise_steps": 0},  # else the student's own choice counts for 0 of 20 at the first step
    "dpo": {"nll_weight": 0.5},  # its form is about the likelihood term
}
"""settings under which one step shows all of a loss"""
OTHER_ROWS = {("process", (("form", "unified"),)): "pairs"}
"""data sets of the world for forms that differ in what they take; on labelled steps this one is `binary`"""
ROWS, STEP = 11, 12
"""rows, and rows of an optimiser step: 11 do not come out even, so that a mean of means differs from the mean"""


@dataclasses.dataclass(frozen=True)
class Case:
    """What a run of one objective is made of."""

    name: str
    module: ModuleType
    config: Any
    examples: list[Example]
    dtype: torch.dtype

    def model(self) -> LanguageModel:
        """The policy, the same each time, with the output heads that the objective asks for."""
        model = runs.small(dtype=self.dtype, reward="value" in self.module.CARD.needs)
        if hasattr(self.module, "output_heads"):
            routed.grow(model.module, self.module.output_heads(self.config))
            if (several := routed.routed_head(model.module)) is not None:
                several.weight.data *= torch.linspace(1.0, 0.5, len(several.weight))[:, None, None]
        return model

    def options(self) -> dict[str, Any]:
        """What `loop.train` is told besides loss and settings; the reference differs from the policy."""
        given = {part: getattr(self.module, part, None) for part in ("stats", "settle")}
        return given | {"needs": self.module.CARD.needs, "reference": runs.small(1, dtype=self.dtype)}

    def gradients(self, folder, *, model=None, loss=None, examples=None, size=STEP, per_device=4, **options):
        """Gradients of one optimiser step before clipping."""
        return runs.gradients(
            model or self.model(), examples or self.examples, loss or self.module.loss, self.config, folder,
            size=size, per_device=per_device, **(self.options() | options),
        )  # fmt: skip

    def run(self, folder, *, on_step=None, **settings) -> None:
        """A whole run of four steps, two an epoch, with checkpoints at 2 and 4."""
        cfg = TrainConfig(**{
            "per_device_train_batch_size": 6, "max_steps": 4, "learning_rate": 1e-3, "warmup_ratio": 0.2,
            "save_steps": 2, "save_total_limit": 2, "use_cpu": True, "ref_cache": "none", **settings,
        })  # fmt: skip
        loop.train(
            self.model(), self.examples, self.module.loss, cfg, folder, objective_config=self.config, on_step=on_step,
            **self.options(),
        )  # fmt: skip


@functools.cache
def smoke(name: str) -> tuple[ModuleType, Any, str]:
    """Return a method's module, and the settings and data set of its smoke command."""
    module = checks.module(name)
    program, verb, method, *rest = shlex.split(module.CARD.smoke.replace("{out}", "out"))
    assert (program, verb, verbs.method(verb, method)) == ("alignlab", "train", (checks.methods()[name], name))
    values = flags.parse(name, commands.groups_of(verb, flags.Group("Method", module.Config)), rest)
    config = dataclasses.replace(flags.build(module.Config, values), **SHOWING.get(name, {}))
    return module, config, values["dataset"].removeprefix("world:")


def forms(name: str) -> list[Form]:
    """Each value of a Literal field that the smoke command does not take, alone."""
    module, config, _ = smoke(name)
    return [
        ((field, value),)
        for field, hint in get_type_hints(module.Config).items()
        if get_origin(hint) is Literal
        for value in get_args(hint)
        if value != getattr(config, field)
    ]


@functools.cache
def case(name: str, dtype: torch.dtype = torch.float32, form: Form = DEFAULT) -> Case:
    """Return the run of one method, in one form."""
    module, config, dataset = smoke(name)
    config, draw = dataclasses.replace(config, **dict(form)), random.Random(name)
    rows = list(world.rows(OTHER_ROWS.get((name, form), dataset), 0, ROWS))
    rows = module.annotate(rows, config)[:ROWS] if hasattr(module, "annotate") else rows
    tokenizer = runs.tiny_models.make_tokenizer()
    examples = [uneven(getattr(module, "encode", encode)(row, tokenizer), draw) for row in rows]
    if hasattr(module, "teachers"):
        specs, k = module.teachers(config)
        teachers = {view: runs.small(seed + 2, dtype=dtype) for seed, view in enumerate(specs)}
        with runs.tiny_models.Float64():
            examples = annotated(examples, teachers, runs.small(dtype=dtype), min(k, 5))
    return Case(name, module, config, examples, dtype)


def uneven(example: Example, draw: random.Random) -> Example:
    """The example with random tokens of random number, soft labels and uneven weights."""

    def ids(least: int, most: int) -> list[int]:
        return [draw.randrange(6, 300) for _ in range(draw.randint(least, most))]

    steps = example.completions
    if len(steps) > 1 and all(b[: len(a)] == a for a, b in itertools.pairwise(steps)):
        # each begins with the one before it, and goes on doing so
        steps = tuple(itertools.accumulate([ids(1, 4) for _ in steps]))
    else:
        steps = tuple([*ids(1, 9), given[-1]] for given in steps)
    return dataclasses.replace(
        example,
        prompt_ids=ids(2, 9),
        completions=steps,
        contexts={name: ids(3, 12) for name in example.contexts},
        own_prompts={k: ids(2, 9) for k in example.own_prompts},
        pairs=tuple((b, w, draw.uniform(0.7, 1.0), m, draw.uniform(0.5, 2.0)) for b, w, _, m, _ in example.pairs),
    )
