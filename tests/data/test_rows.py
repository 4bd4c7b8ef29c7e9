import gzip
import json
import re

import pytest

from alignlab.core.types import Row
from alignlab.data import DataError, adapters, read, sources, write
from alignlab.data.rows import dumps

USER = {"role": "user", "content": "Where is Ada?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ASSISTANT = {"role": "assistant", "content": "At the mill."}
ROWS = [
    Row(prompt="q", completion="a", label=False, meta={"id": "1"}),
    Row(prompt=(SYSTEM, USER), chosen="yes", rejected="no\nno", facts={"gold": "yes", "k": 2, "claims": ["a", None]}),
    Row(prompt="q", completions=("a", "b"), scores=(0.5, -1.0), judgement="too short"),
    Row(prompt="q", chosen="a", rejected="b", second_prompt=(USER,), facts={"text": "kept"}),
    Row(prompt="", completion="Once upon a time \u2028 in a town\x07."),
    Row(prompt="q only"),
]


def lines(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def one(tmp_path, record, **options):
    (row,) = read(lines(tmp_path / "one.jsonl", record), **options)
    return row


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
    def test_what_is_written_is_read(self, tmp_path, name):
        assert write(tmp_path / name, ROWS) == len(ROWS)
        assert list(read(tmp_path / name)) == ROWS

    def test_parquet(self, tmp_path):
        text = [row for row in ROWS if isinstance(row.prompt, str) and row.second_prompt is None]
        chat = [row for row in ROWS if not isinstance(row.prompt, str)]
        for rows in (text, chat, []):
            assert write(tmp_path / "r.parquet", rows) == len(rows)
            assert list(read(tmp_path / "r.parquet")) == rows
        with pytest.raises(DataError, match="cannot share Parquet columns.*write .jsonl"):
            write(tmp_path / "r.parquet", text + chat)
        assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]

    def test_the_same_rows_give_the_same_bytes(self, tmp_path):
        for name in ("a.jsonl.gz", "b.jsonl.gz"):
            write(tmp_path / name, ROWS)
        assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == len(ROWS)
        assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path):
        write(tmp_path / "r.jsonl", ROWS[:1])
        before = (tmp_path / "r.jsonl").read_bytes()

        def broken():
            yield ROWS[1]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "r.jsonl", broken())
        for bad in (float("nan"), object()):
            with pytest.raises(DataError, match="'7'.*cannot be written as JSON"):
                write(tmp_path / "r.jsonl", [ROWS[0], Row(prompt="q", facts={"x": bad}, meta={"id": "7"})])
        with pytest.raises(DataError, match="expected a name ending in"):
            write(tmp_path / "r.txt", ROWS)
        assert (tmp_path / "r.jsonl").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]

    def test_no_rows(self, tmp_path):
        assert write(tmp_path / "none.jsonl", []) == 0
        assert list(read(tmp_path / "none.jsonl")) == []

    def test_one_line_per_row(self):
        assert "\n" not in dumps(ROWS[1])


class TestColumnSets:
    @pytest.mark.parametrize(
        ("record", "row"),
        [
            ({"prompt": "q"}, Row(prompt="q")),
            ({"prompt": [USER]}, Row(prompt=(USER,))),
            ({"text": "some words"}, Row(prompt="", completion="some words")),
            ({"messages": [SYSTEM, USER, ASSISTANT]}, Row(prompt=(SYSTEM, USER), completion="At the mill.")),
            ({"messages": [SYSTEM, USER]}, Row(prompt=(SYSTEM, USER))),
            ({"prompt": "q", "completion": "a"}, Row(prompt="q", completion="a")),
            ({"prompt": [USER], "completion": [ASSISTANT]}, Row(prompt=(USER,), completion="At the mill.")),
            ({"prompt": "q", "completion": "a", "label": True}, Row(prompt="q", completion="a", label=True)),
            ({"prompt": "q", "completion": "a", "label": 0}, Row(prompt="q", completion="a", label=False)),
            ({"prompt": "q", "chosen": "a", "rejected": "b"}, Row(prompt="q", chosen="a", rejected="b")),
            (
                {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No."}]},
                Row(prompt=(USER,), chosen="At the mill.", rejected="No."),
            ),
            (
                {"prompt": "Where is Ada?", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
                Row(prompt="Where is Ada?", chosen="At the mill.", rejected="At the mill."),
            ),
            (
                {"chosen": "Tell me: it is red.", "rejected": "Tell me: it was blue."},
                Row(prompt="Tell me: it", chosen=" is red.", rejected=" was blue."),
            ),
            (
                {"chosen": "\n\nHuman: hi\n\nAssistant: a yes", "rejected": "\n\nHuman: hi\n\nAssistant: a no"},
                Row(prompt="\n\nHuman: hi\n\nAssistant:", chosen=" a yes", rejected=" a no"),
            ),
            (
                {
                    "prompt": [
                        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]}
                    ]
                },
                Row(prompt=({"role": "user", "content": "Hi!"},)),
            ),
            ({"prompt": "q", "answer": 4, "source": "x"}, Row(prompt="q", facts={"answer": 4, "source": "x"})),
            ({"prompt": "q", "completion": "a", "label": None, "chosen": None}, Row(prompt="q", completion="a")),
        ],
    )
    def test_trl(self, tmp_path, record, row):
        assert one(tmp_path, record) == row

    def test_mapping(self, tmp_path):
        record = {"instruction": "Sum up.", "input": "A text.", "output": "Short.", "answer": 4, "who": "x", "id": "7"}
        columns = {
            "prompt": "instruction", "query": "input", "response": "output", "facts.gold": "answer", "meta.id": "id",
        }  # fmt: skip
        row = one(tmp_path, record, columns=columns)
        assert row == Row(
            prompt="Sum up.\nA text.", completion="Short.", facts={"gold": 4, "who": "x"}, meta={"id": "7"}
        )
        empty = one(tmp_path, record | {"input": ""}, columns=columns)
        assert empty.prompt == "Sum up."

    def test_mapping_of_a_system_message(self, tmp_path):
        record = {"s": "Be brief.", "q": "Where is Ada?", "completion": "Here."}
        row = one(tmp_path, record, columns={"system": "s", "prompt": "q"})
        assert row == Row(prompt=(SYSTEM, USER), completion="Here.")
        assert one(tmp_path, record | {"s": None}, columns={"system": "s", "prompt": "q"}).prompt == "Where is Ada?"


class TestErrors:
    @pytest.mark.parametrize(
        ("record", "says"),
        [
            ('{"prompt": "q"', "expected one JSON value"),
            ("[1]", "expected one JSON object"),
            ('{"prompt": "q", "scores": [NaN]}', "NaN is not a number"),
            ({"prompt": 7}, r"field 'prompt': expected a non-empty list of \{role, content\} messages, got int 7"),
            ({"prompt": " "}, "field 'prompt': expected non-empty text or messages"),
            ({"prompt": []}, "field 'prompt': expected a non-empty list"),
            ({"prompt": [{"role": "wizard", "content": "x"}]}, r"field 'prompt\[0\]\.role': expected one of"),
            ({"prompt": [{"content": "x"}]}, r"field 'prompt\[0\]': expected a message"),
            ({"prompt": [USER | {"content": [{"type": "image"}]}]}, "a list of text parts"),
            ({"prompt": "q", "completion": ""}, "field 'completion': expected a non-empty answer"),
            ({"prompt": "q", "chosen": "a"}, "field 'rejected': expected both"),
            ({"prompt": "q", "label": True}, "field 'completion': expected text, since there is a `label`"),
            ({"prompt": "q", "completion": "a", "label": 3}, "field 'label': expected true or false, got int 3"),
            ({"prompt": "q", "completion": "a", "label": "no"}, "field 'label'"),
            ({"prompt": "q", "completions": ["a"], "scores": [1, 2]}, "field 'scores': expected 1 finite numbers"),
            ({"prompt": "q", "completions": ["a"], "scores": [True]}, "field 'scores'"),
            ({"prompt": "q", "completions": "ab"}, "field 'completions': expected a list of non-empty texts"),
            ({"prompt": "q", "facts": [1]}, "field 'facts': expected an object"),
            ({"prompt": "q", "completion": [USER]}, "expected assistant, as the last message"),
            ({"prompt": "other", "completion": [USER, ASSISTANT]}, "or the prompt's messages and then the answer"),
            ({"chosen": "abc", "rejected": "xyz"}, "field 'prompt': expected a `prompt`, or `chosen` and `rejected`"),
            ({"prompt": "q", "choosen": "a", "rejected": "b"}, "unknown field 'choosen'; did you mean 'chosen'"),
            ({"promt": "q"}, "unknown field 'promt'; did you mean 'prompt'"),
            ({"question": "q"}, "no known column set. Columns: question; expected one of: text | messages"),
            ({}, "Columns: none"),
        ],
    )
    def test_they_name_line_and_field(self, tmp_path, record, says):
        path = lines(tmp_path / "bad.jsonl", {"prompt": "fine"}, "", record)
        rows = read(path)
        assert next(rows).prompt == "fine"
        with pytest.raises(DataError) as failure:
            next(rows)
        assert str(failure.value).startswith(f"{path}:3: ")
        assert re.search(says.replace(" | ", r" \| "), str(failure.value)), failure.value

    def test_untrusted_values_are_shown_harmlessly(self, tmp_path):
        path = lines(tmp_path / "bad.jsonl", {"prompt": "q", "label": "\x1b[31m" + "x" * 1000})
        with pytest.raises(DataError) as failure:
            list(read(path))
        assert "\x1b" not in str(failure.value)
        assert len(str(failure.value)) < 400

    def test_mapping_errors(self, tmp_path):
        path = lines(tmp_path / "a.jsonl", {"instruction": "q"})
        with pytest.raises(DataError, match="no field 'promt'; did you mean 'prompt'"):
            read(path, columns={"promt": "instruction"})
        with pytest.raises(
            DataError, match=r"a\.jsonl:1: field 'prompt': expected a column 'instructions'; did you mean"
        ):
            list(read(path, columns={"prompt": "instructions"}))

    def test_files(self, tmp_path):
        lines(tmp_path / "train.jsonl", {"prompt": "q"})
        for spec, says in {
            tmp_path / "trian.jsonl": "no such file; did you mean .*train.jsonl",
            tmp_path / "nowhere" / "a.jsonl": "there is no folder",
            tmp_path / "train.csv": "no such file",
        }.items():
            with pytest.raises(DataError, match=says):
                list(read(spec))
        (tmp_path / "table.csv").write_text("a,b\n")
        with pytest.raises(DataError, match="unknown kind of data file; known: .jsonl"):
            list(read(tmp_path / "table.csv"))

    def test_damaged_files(self, tmp_path):
        whole = gzip.compress(b'{"prompt": "q"}\n' * 5000)
        (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-30])
        (tmp_path / "plain.jsonl.gz").write_bytes(b'{"prompt": "q"}\n')
        (tmp_path / "latin.jsonl").write_bytes('{"prompt": "caf\u00e9"}\n'.encode("latin-1"))
        (tmp_path / "no.parquet").write_bytes(b"PAR1 but no more")
        lines(tmp_path / "tail.jsonl", {"prompt": "q"}, '{"prompt": "hal')
        for name, says in {
            "cut.jsonl.gz": "not a whole gzip file",
            "plain.jsonl.gz": "not a whole gzip file",
            "latin.jsonl": "latin.jsonl:1: expected UTF-8 text",
            "no.parquet": "not a readable Parquet file",
            "tail.jsonl": "tail.jsonl:2: expected one JSON value",
        }.items():
            with pytest.raises(DataError, match=says):
                list(read(tmp_path / name))

    def test_no_permission(self, tmp_path, monkeypatch):
        path = lines(tmp_path / "mine.jsonl", {"prompt": "q"})

        def refused(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(type(path), "open", refused)
        with pytest.raises(DataError, match="mine.jsonl: cannot be read: Permission denied"):
            list(read(path))


class TestWhatIsRead:
    def test_limit_and_split(self, tmp_path):
        path = lines(tmp_path / "r.jsonl", *[{"prompt": f"{i}", "split": "ab"[i % 2]} for i in range(10)])
        assert [r.prompt for r in read(path, limit=3)] == ["0", "1", "2"]
        assert [r.prompt for r in read(path, limit=2, split="b")] == ["1", "3"]
        assert list(read(path, limit=0)) == []
        with pytest.raises(DataError, match="limit"):
            read(path, limit=-1)
        with pytest.raises(DataError, match=r"bare\.jsonl:1: field 'split'"):
            list(read(lines(tmp_path / "bare.jsonl", {"prompt": "q"}), split="b"))

    def test_json_arrays_and_byte_order_marks(self, tmp_path):
        (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'\n [{"prompt": "p"}, {"prompt": 7}]')
        rows = read(tmp_path / "a.json")
        assert next(rows).prompt == "p"
        with pytest.raises(DataError, match=r"a\.json\[1\]: field 'prompt'"):
            next(rows)
        (tmp_path / "l.json").write_bytes(b'\xef\xbb\xbf{"prompt": "p"}\n{"prompt": "q"}\n')
        assert [r.prompt for r in read(tmp_path / "l.json")] == ["p", "q"]

    def test_reading_is_lazy(self, tmp_path):
        path = lines(tmp_path / "r.jsonl", {"prompt": "q"}, "broken")
        assert [r.prompt for r in read(path, limit=1)] == ["q"]

    def test_an_adapter(self, tmp_path):
        item = {
            "id": "1",
            "scenario": "clean",
            "question": "q?",
            "contexts": [{"text": "c", "claim": "a"}],
            "gold": "a",
        }
        path = lines(tmp_path / "items.jsonl", item)
        (row,) = read(f"conflicts:{path}")
        assert (row.prompt, row.facts["gold"]) == ("q?", "a")
        with pytest.raises(DataError, match="leave the mapping out"):
            list(read(f"conflicts:{path}", columns={"prompt": "question"}))

    @pytest.mark.parametrize(
        ("spec", "near"),
        [
            ("conflictsqa:FILE", "; did you mean conflictqa:"), ("poisoned-rag:FILE", "; did you mean poisonedrag:"),
            ("qual-o-mat:folder", "; did you mean qual_o_mat:folder?"), ("wrold:pairs", "; did you mean world:pairs?"),
            ("zzz:FILE", "no adapter 'zzz'. Adapters"), ("zzz:a/b", "no adapter 'zzz'. Adapters"),
        ],
    )  # fmt: skip
    def test_an_unknown_adapter(self, tmp_path, monkeypatch, spec, near):
        """Whether it could be a hub dataset with its config or not, all adapters are said."""

        def unreachable(name, split, limit, config):
            raise DataError(f"dataset {name!r}: no such file, and not reachable on the hub")
            yield

        monkeypatch.setattr(sources, "hub_records", unreachable)
        with pytest.raises(DataError) as error:
            list(read(spec.replace("FILE", str(lines(tmp_path / "items.jsonl", {"prompt": "q"})))))
        assert near in str(error.value)
        assert all(f" {name}" in str(error.value) for name in (*adapters.names(), "world"))
        assert ("hub" in str(error.value)) == (spec in ("qual-o-mat:folder", "wrold:pairs"))

    def test_a_colon_may_be_a_hub_config_or_a_file_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "hub_records", lambda *_: iter([("gsm8k row 0", {"prompt": "q"})]))
        assert [row.prompt for row in read("gsm8k:main")] == ["q"]
        lines(tmp_path / "zzz:a.jsonl", {"prompt": "a file of that name"})
        monkeypatch.chdir(tmp_path)
        assert [row.prompt for row in read("zzz:a.jsonl")] == ["a file of that name"]

    def test_a_folder_through_datasets(self, tmp_path):
        (tmp_path / "set").mkdir()
        lines(tmp_path / "set" / "train.jsonl", *[{"prompt": f"{i}"} for i in range(5)])
        assert [r.prompt for r in read(tmp_path / "set", limit=2)] == ["0", "1"]
        with pytest.raises(DataError, match="split 'test'"):
            list(read(tmp_path / "set", split="test", limit=1))

    def test_the_hub_offline(self, monkeypatch):
        import datasets
        import huggingface_hub.constants

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(DataError, match="dataset 'town/no-such-set'.*Offline.*local file"):
            list(read("town/no-such-set"))


def test_published_preferences(published):
    rows = list(read(published("hh_rlhf/harmless-base-test.jsonl.gz")))
    assert len(rows) == 2312
    assert all(row.prompt.startswith("\n\nHuman:") and row.prompt.endswith("\n\nAssistant:") for row in rows)
    with gzip.open(published("hh_rlhf/harmless-base-test.jsonl.gz"), "rt") as file:
        for row, line in zip(rows, file, strict=True):
            record = json.loads(line)
            assert (row.prompt + row.chosen, row.prompt + row.rejected) == (record["chosen"], record["rejected"])
    blank = [row for row in rows if not row.chosen.strip() or not row.rejected.strip()]
    assert len(blank) == 4


def test_published_parquet(published):
    rows = list(read(published("gtalign/ambig_qa-test.parquet")))
    assert len(rows) == 300
    assert all(isinstance(row.prompt, tuple) for row in rows)


def test_stepwise_columns_of_trl(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text('{"prompt": "Q", "completions": ["One.", "Two."], "labels": [true, false]}\n')
    (row,) = read(path)
    assert row.completions == ("One.", "Two.")
    assert row.facts == {"labels": [True, False]}
    path.write_text('{"prompt": "Q", "completion": "One.", "labels": [true]}\n')
    with pytest.raises(DataError, match="did you mean 'label'"):
        list(read(path))
