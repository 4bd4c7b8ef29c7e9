import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from alignlab.report.text import REDACTED, duration, escape_json, number, plain, redact, show, yaml_text


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0.4804, "0.480"),
        (12.345, "12.35"),
        (141.23, "141.2"),
        (4800.0, "4,800"),
        (96000, "96,000"),
        (-0.5, "−0.500"),
        (0.0, "0.000"),
        (1e-9, "1.00e−09"),
        (3e8, "3.00e+08"),
        (math.nan, "–"),
        (None, "–"),
        (-math.inf, "−∞"),
        (True, "yes"),
        ("a\x1bb", "a␛b"),
    ],
)
def test_number(value, want):
    assert number(value) == want


def test_duration():
    assert (duration(3.21), duration(141.2), duration(7300)) == ("3.2 s", "2 min 21 s", "2 h 1 min")


@dataclass
class Inner:
    path: Path
    values: tuple


def test_plain_is_json():
    value = {"a": Inner(Path("/x"), (1, math.nan, math.inf)), 3: {"b", "a"}, "n": np.float32(0.5), "v": np.arange(2)}
    got = plain(value)
    assert got == {"a": {"path": "/x", "values": [1, None, None]}, "3": ["a", "b"], "n": 0.5, "v": [0, 1]}
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    "name", ["api_key", "OPENAI_API_KEY", "hf-token", "token", "access_token", "password", "apikey"]
)
def test_secrets_go_by_name(name):
    assert plain({"x": {name: "abc"}}) == {"x": {name: REDACTED}}


def test_what_only_looks_like_a_secret_stays():
    settings = {"max_tokens": 256, "eos_token": "</s>", "tokenizer": "x", "tokens": "many", "token": 5, "api_key": None}
    assert plain(settings) == settings


def test_secrets_go_by_value_and_by_shape(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "correct horse battery")
    monkeypatch.setenv("PASSWORD", "short")
    assert redact("--key 'correct horse battery' short") == f"--key '{REDACTED}' short"
    assert redact("sk-abcdefghijklmnop1234 hf_abcdefghijklmnopqrstuv") == f"{REDACTED} {REDACTED}"
    assert redact("Authorization: Bearer abc.def-ghi_jkl") == f"Authorization: Bearer {REDACTED}"
    assert plain(["x correct horse battery"]) == [f"x {REDACTED}"]
    assert "horse" not in show("correct horse battery")


def test_show_limits():
    assert len(show("x" * 10**6)) < 4100
    assert show({"a": 1}) == "{'a': 1}"


def test_yaml_means_the_same_and_keeps_other_scripts():
    for value in ({"a": "漢字 é"}, {"a": "b\u202ec\x1b\x9b", "é": 1}):
        text = yaml_text(value)
        assert yaml.safe_load(text) == value
        assert not any(c in text for c in "\u202e\x1b\x9b")
    assert "漢字" in yaml_text({"a": "漢字"})


def test_json_that_steers_nothing_means_the_same():
    text = json.dumps("a\x1b\x7f\x9b\u202e\u2028é\ud800", ensure_ascii=False)
    safe = escape_json(text)
    assert json.loads(safe) == json.loads(text)
    assert "é" in safe
    assert not any(c in safe for c in "\x7f\x9b\u202e\u2028\ud800")
