"""Rows that do not go with the objective, or with each other, are named before anything is trained or written."""

import dataclasses

import pytest
import train_runs as runs

from alignlab.objectives import dpo, kto, ranked, sft
from alignlab.rewards import outcome
from alignlab.train.inputs import CHUNK, views_of

PAIRS, PLAIN = runs.some(6, pairs=True), runs.some(6, pairs=False)


def labelled(examples, *labels):
    return [dataclasses.replace(e, labels=(label,)) for e, label in zip(examples, labels)]


def scored(examples, *scores):
    return [dataclasses.replace(e, scores={"score": (score,)}) for e, score in zip(examples, scores)]


CASES = {
    "pairs beside a completion": (dpo, [*PAIRS[:4], PLAIN[4]], "row 4: dpo needs pairs: give rows with chosen"),
    "labels partly missing": (kto, [*labelled(PLAIN[:3], True, False, True), PLAIN[3]], "row 3: kto needs thumbs"),
    "scores partly missing": (ranked, [*scored(PLAIN[:2], 1.0, 2.0), PLAIN[2]], "row 2: ranked needs ranked lists"),
    "a rejected one": (sft, labelled(PLAIN[:3], True, True, False), "row 2: sft imitates every completion"),
    "labels that nobody needs": (
        sft, [*labelled(PLAIN[:2], True, True), *PLAIN[2:4]], "row 2 has no label, but .*row 0 has one; give it to all",
    ),
    "thumbs beside pairs": (kto, [*labelled(PLAIN[:2], True, False), PAIRS[2]], "row 2 has no label, but .*row 0 has"),
}  # fmt: skip


@pytest.mark.parametrize("held_out", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("per_device", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_they_are_named_and_nothing_is_written(tmp_path, name, per_device, held_out):
    module, bad, says = CASES[name]
    good = {
        dpo: PAIRS,
        kto: labelled(PLAIN, *[True, False] * 3),
        ranked: scored(PLAIN, *map(float, range(6))),
        sft: PLAIN,
    }[module]
    examples, held, says = (good, bad, f"evaluation {says}") if held_out else (bad, good, f"^{says}")
    cfg = runs.TrainConfig(max_steps=2, per_device_train_batch_size=per_device, use_cpu=True, ref_cache="none")
    model = runs.small()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    with pytest.raises(ValueError, match=says):
        runs.loop.train(
            model, examples, module.loss, cfg, tmp_path / "out", objective_config=module.Config(),
            stats=getattr(module, "stats", None), eval_examples=held,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert all((value == before[key]).all() for key, value in model.module.state_dict().items())


def test_every_row_is_looked_at_and_named_by_its_place_without_an_id():
    rows = [dataclasses.replace(e, row_id="") for e in runs.some(2 * CHUNK + 3, pairs=False)]
    rows = scored(rows, *[0.5] * (2 * CHUNK + 1), 80.0, 0.5)
    loss = lambda batch: outcome._targets(batch)  # noqa: E731
    with pytest.raises(ValueError, match=rf"row {2 * CHUNK + 2}: outcome needs scores in \[0, 1\], got \[80.0\]"):
        views_of(loss, rows, 0)
    views_of(loss, rows[: 2 * CHUNK + 1], 0)


def test_views_that_only_later_rows_need_are_found():
    def loss(batch):
        return batch.views["policy"] if batch.pairs is None else batch.views["ref"]

    assert views_of(loss, PLAIN, 0) == {"policy"}
    for rows in ([*PLAIN[:2], *PAIRS[2:4]], [*PAIRS[:2], *PLAIN[2:4]]):
        assert views_of(loss, rows, 0) == {"policy", "ref"}
    assert views_of(loss, [], 0) == set()
