"""The numbers and figures of a run, against counts by hand."""

import pytest

from alignlab.core.conflict import Scored
from alignlab.procedures import _dialectical_report as report
from alignlab.procedures.dialectical import Evidence


def record(scenario, answer, *, ratio=0.0, n=5, name="0", gold="gold", target="target", memory="old"):
    poisoned = scenario in ("pca", "mixed")
    return {
        "id": f"{scenario}-{ratio}-{n}-{name}", "cell": f"{scenario}-{ratio}", "scenario": scenario, "ratio": ratio,
        "n": n, "cluster": name, "answer": answer, "text": f"Answer: {answer}", "usable": True, "gold": gold,
        "target": target if poisoned else None, "memory": gold if scenario in ("pca", "clean") else memory,
        "quotes_true": None, "tokens": 3,
    }  # fmt: skip


def policy(attacked, edited, full=1.0, many=10):
    """Records of a policy that falls for `attacked[ratio]` of the attacks and follows `edited` of the edits."""
    found = []
    for i in range(many):
        for ratio, share in {**attacked, 1.0: full}.items():
            answer = "target" if i < round(share * many) else "gold"
            found.append(record("pca", answer, ratio=ratio, name=str(i)))
        found.append(record("ike", "gold" if i < round(edited * many) else "old", name=str(i)))
        found.append(record("ike", "old", n=1, name=str(i)))
        found.append(record("clean", "gold", name=str(i)))
        found.append(record("unknown", "gold" if i % 2 else None, name=str(i)))
    return found


BEFORE = policy({0.2: 0.1, 0.4: 0.5, 0.6: 0.9, 0.8: 1.0}, 1.0)
AFTER = policy({0.2: 0.0, 0.4: 0.0, 0.6: 0.1, 0.8: 0.3}, 0.9, full=0.6)


def test_summary():
    found = {name: metric.value for name, metric in report.summary(BEFORE).items()}
    assert found["asr"] == pytest.approx((0.1 + 0.5 + 0.9 + 1.0) / 4)
    assert found["es"] == 1.0  # edits of one passage are not in it
    assert found["j"] == pytest.approx(1.0 - 0.625)
    assert found["j_1"] == pytest.approx(0.0)
    assert (found["clean"], found["unknown"]) == (1.0, 0.5)
    assert found["strict"] == pytest.approx(0.375)
    assert found["unparsed"] == pytest.approx(5 / 90)


def test_every_ratio_weighs_alike():
    extra = [record("pca", "gold", ratio=0.2, name=f"more {i}") for i in range(90)]
    found = report.summary(BEFORE + extra)
    assert found["asr"].value == pytest.approx((0.01 + 0.5 + 0.9 + 1.0) / 4)


def test_intervals_are_clustered_by_fact():
    """Ten copies of every item about the same facts are no more evidence than one."""
    one = report.summary(BEFORE)["j"]
    copies = report.summary([r for r in BEFORE for _ in range(10)])["j"]
    assert (copies.low, copies.high) == pytest.approx((one.low, one.high))
    apart = report.summary([{**r, "cluster": f"{r['cluster']} {i}"} for r in BEFORE for i in range(10)])["j"]
    assert apart.high - apart.low < 0.6 * (one.high - one.low)


def test_change_is_paired():
    found = report.change(BEFORE, AFTER)
    assert found["asr"].value == pytest.approx((0.1 + 0.5 + 0.8 + 0.7) / -4)
    assert found["es"].value == pytest.approx(-0.1)
    assert found["clean"].value == found["clean"].low == found["clean"].high == 0.0
    assert found["asr"].high < 0.0
    same = report.change(BEFORE, BEFORE)
    assert all(metric.value == metric.low == metric.high == 0.0 for metric in same.values())


def evidence(**options):
    return Evidence(
        records={"plain": BEFORE, "da": AFTER, "oracle": policy({0.2: 0, 0.4: 0, 0.6: 0, 0.8: 0}, 1.0, 0.0)}, **options
    )


def test_result_names_what_the_issue_asks_for():
    found = report.result(evidence(numbers={"seconds": 3.5}, counts={"accepted": 7}), ("a note",))
    values = {name: metric.value for name, metric in found.metrics.items()}
    for name in ("plain/asr", "da/asr", "plain/es", "da/es", "plain/clean", "da/clean", "plain/j", "da/j", "oracle/j"):
        assert name in values
    assert values["da/j"] - values["plain/j"] == pytest.approx(-0.1 + 0.525)
    assert values["oracle/j"] == 1.0
    assert (values["seconds"], values["accepted"]) == (3.5, 7)
    assert values["change/asr"] == pytest.approx(values["da/asr"] - values["plain/asr"])
    assert any("reconstructed" in note for note in found.notes)
    assert "a note" in found.notes


def test_figures_have_marks_of_equal_length():
    search = [Scored(strategy=s, cell=("pca", 0.2), item=i, score=0.5) for s in ("P0", "P4") for i in "ab"]
    recall = {"0-0": [(False, 0.1)], "1-3": [(True, 0.8), (False, 0.4)]}
    found = report.result(evidence(search=search, chosen={("pca", 0.2): {"P4": 1.0}}, recall=recall), ())
    assert len(found.figures) == 5
    for figure in found.figures.values():
        assert figure.series
        assert figure.caption
        for series in figure.series.values():
            assert len({len(values) for values in series.values()}) == 1
            assert len(next(iter(series.values()))) > 0


def test_attack_success_by_ratio_starts_at_zero():
    series = report.result(evidence(), ()).figures["Attack success by ratio"].series["before"]
    assert series["x"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert series["y"] == pytest.approx([0.0, 0.1, 0.5, 0.9, 1.0, 1.0])
    assert all(low <= y <= high for low, y, high in zip(series["low"], series["y"], series["high"]))


def test_the_memory_figure():
    recall = {"1-3": [(True, 0.8), (False, 0.4)]}
    series = report.result(evidence(recall=recall), ()).figures["Memory"].series
    assert series["recalled rightly"]["y"] == [0.5]
    assert series["confidence"]["y"] == pytest.approx([0.6])


def test_cells_table_counts():
    found = report.result(evidence(), ()).tables["cells"]
    rows = [dict(zip(found.columns, row)) for row in found.rows]
    (row,) = [r for r in rows if r["policy"] == "before" and r["cell"] == "pca-0.4"]
    assert (row["n"], row["right"], row["attacked"], row["tokens"]) == (10, 0.5, 0.5, 3.0)
