import json

import pytest

from alignlab.data import rows
from alignlab.data.columns import DataError

RESULT = {"metrics": {"lean": 3.0}, "intervals": {"lean": [1.0, 5.0]}, "method": "evals/wahl_o_mat"}


def listed(folder, *entries, result=RESULT):
    (folder / "runs" / "a").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "a" / "result.json").write_text(json.dumps(result))
    path = folder / "runs.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return list(rows.read(f"runs:{path}"))


def test_a_run_is_found_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (row,) = listed(tmp_path, {"folder": "runs/a", "family": "qwen", "size": 6e8, "origin": "CN"})
    assert row.facts == {
        "folder": "runs/a", "family": "qwen", "size": 6e8, "origin": "CN", "method": "evals/wahl_o_mat",
        "metrics": {"lean": 3.0}, "intervals": {"lean": [1.0, 5.0]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": 0}, "size"), ({"size": "7B"}, "size"), ({"size": True}, "size"), ({"family": ""}, "family"),
     ({"folder": None}, "folder"), ({"folder": "runs/b"}, "no finished run")],
)  # fmt: skip
def test_broken_lines_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"runs\.jsonl:1.*{message}"):
        listed(tmp_path, {"folder": "runs/a", "family": "qwen", "size": 1, **change})


def test_a_result_without_metrics_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no metrics"):
        listed(tmp_path, {"folder": "runs/a", "family": "q", "size": 1}, result={"metrics": None})
    with pytest.raises(DataError, match="one JSON object"):
        listed(tmp_path, ["runs/a"])
