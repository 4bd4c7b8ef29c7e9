"""The watch on DPO: it is there in every test, counts what it sees, and fails where the theorem is broken."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import theorem
from alignlab.objectives import dpo

sys.path[:0] = [str(Path(__file__).parent / name) for name in ("objectives", "train")]

import exactness  # noqa: E402
import train_runs as runs  # noqa: E402

CFG = dpo.Config(beta=0.3)


def batch(seed=0):
    ((found, _),) = exactness.lay_out(
        exactness.prompts(seed, weighted=True, soft=seed % 2 == 1), exactness.Layout(), ()
    )
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_objective_keeps_it(seed):
    before = theorem.seen
    dpo.loss(batch(seed), CFG)
    assert theorem.seen - before == len(batch(seed).pairs.better)


def broken_by(change):
    """What the watch says of a DPO whose pairs, reference or strength are changed behind its back."""
    module = SimpleNamespace(loss=change)
    theorem.watch(module)
    with pytest.raises(AssertionError, match="theorem 4.1 is broken"):
        tuple(module.loss(batch(seed), CFG) for seed in range(4))


def test_swapped_sides_are_noticed():
    def swapped(given, cfg):
        pairs = dataclasses.replace(given.pairs, better=given.pairs.worse, worse=given.pairs.better)
        return dpo.loss(dataclasses.replace(given, pairs=pairs), cfg)

    broken_by(swapped)


def test_a_wrong_reference_is_noticed():
    def wrong(given, cfg):
        ref = dataclasses.replace(given.views["ref"], logp=given.views["ref"].logp * 3)
        return dpo.loss(dataclasses.replace(given, views={**given.views, "ref": ref}), cfg)

    broken_by(wrong)


def test_another_strength_than_the_settings_say_is_noticed():
    broken_by(lambda given, cfg: dpo.loss(given, dataclasses.replace(cfg, beta=2 * cfg.beta)))


def test_means_in_place_of_sums_are_noticed():
    def averaged(given, cfg):
        lengths = given.mask.sum(1)[:, None]
        views = {
            n: dataclasses.replace(v, logp=torch.where(given.mask, v.logp, 0) / lengths) for n, v in given.views.items()
        }
        return dpo.loss(dataclasses.replace(given, views=views), cfg)

    broken_by(averaged)


def test_a_run_is_watched_from_its_first_step_to_its_last(tmp_path):
    before = theorem.seen
    runs.run(tmp_path, steps=4)
    assert theorem.seen - before >= 4 * 4, "four steps of four pairs, and those held out"
