"""The comparison with TRL and lm-eval: which of their rows are tried, kept and held against ours."""

import argparse
import json
import mmap

import pytest


@pytest.fixture(scope="module")
def training(script):
    return script("training.py")


@pytest.fixture
def asks(training, monkeypatch):
    """Answer every measurement by a list of seconds, over and over; return what was asked."""
    asked = []

    def answered(seconds, memory=(100,)):
        def ask(settings, patience):
            asked.append(settings)
            place = len(asked) - 1
            found = seconds[place % len(seconds)]
            if found is None:
                return {"error": "stopped"}
            return {"seconds": found, "memory": memory[place % len(memory)], "units": 4}

        monkeypatch.setattr(training, "ask", ask)
        return asked

    return answered


def options(**changed):
    return argparse.Namespace(
        **{"batches": [1, 4], "option_batches": [1, 8], "patience": 1.0, "turns": 3, "clock": "seconds"} | changed
    )


@pytest.mark.parametrize(
    ("objective", "batches", "precompute"),
    [("dpo", {1, 4}, {False, True}), ("kto", {2, 4}, {False, True}), ("sft", {1, 4}, {False})],
)
def test_the_sweep_tries_what_a_trainer_takes(training, asks, objective, batches, precompute):
    asked = asks([1.0])
    rows = training.sweep({"objective": objective}, options())
    assert {row["batch"] for row in rows} == batches  # TRL's KTO takes no batch of one
    assert {row["precompute"] for row in rows} == precompute
    assert len(rows) == len(asked) == len(batches) * len(precompute) * 2
    assert {a["worker"] for a in asked} == {"trl"}
    both = training.sweep({"objective": "kto"}, options(batches=[1, 2]))
    assert {row["batch"] for row in both} == {2}


def test_best_is_held_against_best_and_failures_are_kept(training):
    ours = [
        {"batch": 1, "seconds": 4.0, "memory": 50, "units": 8},
        {"batch": 4, "seconds": 2.0, "memory": 60, "units": 8},
    ]
    theirs = [{"error": "stopped"}, {"batch": 1, "seconds": 9.0, "memory": 80, "units": 8}]
    found = training.compared(ours, theirs, "seconds")
    assert (found["ratio"], found["memory_ratio"]) == (4.5, 0.75)
    assert (found["ours"]["batch"], found["ours"]["per_second"]) == (4, 4.0)
    assert found["peer_rows"][0] == {"error": "stopped"}
    nothing = training.compared(ours, [{"error": "stopped"}], "seconds")
    assert (nothing["ratio"], nothing["memory_ratio"], nothing["peer"]) == (None, None, None)
    with pytest.raises(AssertionError):
        training.compared([{**ours[0], "sum": 1.0}], [{**theirs[1], "sum": 2.0}], "seconds")


def test_turns_give_the_median_of_ratios_of_neighbours(training, asks, monkeypatch):
    monkeypatch.setattr(training, "AFTER", 2)
    seconds = [0.5, 5.0, 1.0, 1.5, 3.0, 16.0, 4.0, 5.0, 2.0, 20.0, 2.0, 2.0]
    asked = asks(seconds, [50, 100, 60, 70, 50, 100, 50, 50, 90, 100, 60, 60])
    row = {"name": "dpo/x", "ours": {"batch": 4, "seconds": 9.0}, "ratio": 1.0,
           "peer": {"batch": 1, "precompute": True, "checkpointing": False, "seconds": 9.0}}  # fmt: skip
    found = training.in_turn(row, {"objective": "dpo"}, options())
    assert [turn["ratio"] for turn in found["turns"]] == [5.0, 4.0, 10.0]
    assert [turn["ours"] for turn in found["turns"]] == [1.0, 4.0, 2.0]
    assert (found["ratio"], found["memory_ratio"]) == (5.0, 0.6)
    assert [a["worker"] for a in asked] == ["ours", "trl", "ours", "ours"] * 3
    assert asked[0] == asked[2] == {"objective": "dpo", "batch": 4, "worker": "ours"}
    assert asked[1] == {"objective": "dpo", "batch": 1, "precompute": True, "checkpointing": False, "worker": "trl"}


def test_a_turn_that_failed_does_not_count(training, asks, monkeypatch):
    monkeypatch.setattr(training, "AFTER", 1)
    asks([1.0, None, 1.0, 2.0, 6.0, 2.0, 2.0, 6.0, None])
    row = {"name": "options", "ours": {"batch": 32}, "peer": {"batch": 8}}
    found = training.in_turn(row, {"objective": "options"}, options(turns=3))
    assert [turn["ratio"] for turn in found["turns"]] == [3.0]
    asks([None, None, None])
    with pytest.raises(SystemExit, match="options: no turn was measured whole"):
        training.in_turn(row, {"objective": "options"}, options(turns=1))


def test_rows_of_the_same_name_dtype_machine_and_length_are_replaced(training, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "OUT", tmp_path / "training.json")
    old = [{"name": n, "dtype": "float32", "machine": "a", "groups": 64, "ratio": 1} for n in ("dpo/b", "dpo/a")]
    training.OUT.write_text(json.dumps({"rows": old}))
    new = [{**old[0], "ratio": 2}, {**old[0], "machine": "b", "ratio": 3}, {**old[0], "groups": 256, "ratio": 4}]
    apart = {**old[0], "attn_implementation": "flex_attention", "ratio": 5}
    assert [row["ratio"] for row in training.merged([apart])] == [1, 1, 5]
    found = training.merged(new)
    assert [(r["name"], r["machine"], r["groups"], r["ratio"]) for r in found] == [
        ("dpo/a", "a", 64, 1), ("dpo/b", "a", 64, 2), ("dpo/b", "a", 256, 4), ("dpo/b", "b", 64, 3)
    ]  # fmt: skip


def test_a_peers_rows_hold_for_epochs_of_another_length(training, monkeypatch, tmp_path):
    """They are compared per second; not with those of another machine, dtype or clock."""
    monkeypatch.setattr(training, "OUT", tmp_path / "training.json")
    peer = {"batch": 1, "units": 64, "seconds": 32.0, "memory": 10}
    known = {"name": "dpo/a", "dtype": "float32", "machine": "a", "clock": "seconds"}
    training.OUT.write_text(json.dumps({"rows": [{**known, "groups": 64, "peer_rows": [peer]}]}))
    rows = training.peers_before({**known, "groups": 256})
    mine = {"batch": 8, "units": 256, "seconds": 32.0, "memory": 5}
    assert training.compared([mine], rows, "seconds")["ratio"] == 4
    for change in ({"dtype": "bfloat16"}, {"machine": "b"}, {"clock": "cpu_seconds"}):
        with pytest.raises(LookupError, match="--keep_peer"):
            training.peers_before({**known, "groups": 64, **change})


def test_attention_is_chosen_for_our_side_alone(training):
    asked = {"size": "mini", "attn_implementation": "flex_attention"}
    found = {
        name: training.model_of({**asked, "worker": name}).config._attn_implementation for name in training.WORKERS
    }
    assert found == {"ours": "flex_attention", "our_options": "flex_attention", "trl": "sdpa", "lm_eval": "sdpa"}


def test_memory_is_what_the_action_takes_beside_the_optimisers_moments(training):
    import torch

    kept = []

    def take():
        # fresh pages: what the heap has kept of freed tensors is resident already
        kept.append(mmap.mmap(-1, 64 * 2**20))
        for page in range(0, 64 * 2**20, mmap.PAGESIZE):
            kept[-1][page] = 1

    model = torch.nn.Linear(1000, 1000)
    found = training.measured(take, 3, gpu=False)
    assert found["units"] == 3
    assert found["memory"] == pytest.approx(64 * 2**20, rel=0.1)
    less = training.measured(take, 3, model, gpu=False)
    assert less["memory"] == pytest.approx(64 * 2**20 - 8 * 1001000, rel=0.1)
