import os
import random
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

import tiny_models
from alignlab.engine.identity import base_digest
from alignlab.engine.load import LanguageModel, Lora, _put_fresh
from alignlab.engine.refcache import HEADER, ReferenceCache, open_cache, weights_identity
from alignlab.engine.steered import Steered

A, B = "a" * 64, "b" * 64


def filled(folder, n=20, identity=A):
    """A cache with n completions of uneven length, and what is in it."""
    cache, draw = ReferenceCache(folder, identity, "float32"), random.Random(0)
    values = {}
    for k in range(n):
        ids = [draw.randrange(1000) for _ in range(draw.randint(1, 9))]
        values[cache.key([k, 1, 2], ids, [True] * len(ids))] = torch.randn(len(ids))
    for key, value in values.items():
        cache.put({key: value})
    return cache, values


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_values_come_back_bit_for_bit(tmp_path):
    cache, values = filled(tmp_path)
    assert same(cache.get(values), values)
    assert same(ReferenceCache(tmp_path, A, "float32").get(values), values)
    assert cache.get([b"\0" * 32]) == {}
    double = {b"\1" * 32: torch.randn(5, dtype=torch.float64), b"\2" * 32: torch.zeros(0)}
    cache.put(double)
    assert same(cache.get(double), double)
    assert cache.path.stat().st_mode & 0o77 == 0


def test_nothing_is_found_where_nothing_was_put(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ReferenceCache(tmp_path / "new", A, "float32").get([b"\0" * 32]) == {}


def test_everything_that_a_value_depends_on_is_in_its_key(tmp_path):
    one = ReferenceCache(tmp_path, A, "float32")
    base = one.key([1, 2], [3, 4, 5], [True, True, False])
    others = [
        ReferenceCache(tmp_path, B, "float32").key([1, 2], [3, 4, 5], [True, True, False]),
        ReferenceCache(tmp_path, A, "bfloat16").key([1, 2], [3, 4, 5], [True, True, False]),
        one.key([1], [2, 3, 4, 5], [True, True, True, False]),
        one.key([1, 2, 3], [4, 5], [True, True]),
        one.key([1, 7], [3, 4, 5], [True, True, False]),
        one.key([1, 2], [3, 7, 5], [True, True, False]),
        one.key([1, 2], [3, 4, 5], [False, True, False]),
        one.key([1, 2], [3, 4, 5], [True, True, True]),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert base == one.key([1, 2], [3, 4, 9, 9], [True, True, False, False]), "what is not read does not matter"


def test_a_file_under_another_models_name_is_worth_nothing(tmp_path):
    cache, values = filled(tmp_path)
    other = ReferenceCache(tmp_path, B, "float32")
    os.replace(cache.path, other.path)
    keys = [other.key([k, 1, 2], [5, 6], [True, True]) for k in range(20)]
    assert other.get(keys) == {}


def test_any_flipped_byte_is_noticed(tmp_path):
    cache, values = filled(tmp_path, n=4)
    whole = cache.path.read_bytes()
    order = list(values)
    sizes = [HEADER.size + 4 * len(values[k]) + 16 for k in order]
    for place in range(len(whole)):
        cache.path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        hit = next(k for k in range(4) if place < sum(sizes[: k + 1]))
        with pytest.warns(UserWarning, match=f"{sizes[hit]} bytes hold no whole record"):
            found = cache.get(values)
        assert same(found, {k: v for k, v in values.items() if k != order[hit]}), place
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what was damaged is gone
            assert len(cache.get(values)) == 3


@pytest.mark.parametrize("cut", [1, 20, 50])
def test_records_after_a_torn_one_are_found(tmp_path, cut):
    cache, values = filled(tmp_path, n=5)
    cache.path.write_bytes(cache.path.read_bytes()[:-cut])
    more = {b"\7" * 32: torch.randn(4)}
    cache.put(more)
    with pytest.warns(UserWarning, match="no whole record"):
        found = cache.get([*values, *more])
    assert same(found, {**dict(list(values.items())[:4]), **more})


WRITER = """
import sys, torch
from pathlib import Path
from alignlab.engine import refcache
cache = refcache.ReferenceCache(sys.argv[1], "a" * 64, "float32")
for k in range(int(sys.argv[3])):
    value = torch.full((200,), float(k))
    value[0] = float(sys.argv[2])
    cache.put({cache.key([k], [int(sys.argv[2])], [True]): value})
    print(k, flush=True)
"""


def writer(folder, name, n):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, name, str(n)], stdout=subprocess.PIPE, env=os.environ, text=True
    )


def test_two_processes_and_a_kill(tmp_path):
    """Both write at once; one is killed while it writes; whatever it reported as put is there."""
    killed, other = writer(tmp_path, "1", 10**6), writer(tmp_path, "2", 300)
    seen = []
    while len(seen) < 100:
        seen.append(int(killed.stdout.readline()))
    time.sleep(random.random() * 0.01)
    os.kill(killed.pid, signal.SIGKILL)
    seen += map(int, killed.stdout.read().split("\n")[:-1])
    assert other.wait() == 0
    other.stdout.close()
    killed.stdout.close()
    killed.wait()
    cache = ReferenceCache(tmp_path, A, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last record may be torn
        for name, count in ((1, len(seen)), (2, 300)):
            keys = [cache.key([k], [name], [True]) for k in range(count)]
            found = cache.get(keys)
            assert len(found) == count
            for k, key in enumerate(keys):
                assert found[key][0] == name
                assert (found[key][1:] == k).all()


def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path):
    place = tmp_path / "file"
    place.write_text("not a folder")
    cache = ReferenceCache(place, A, "float32")
    with pytest.warns(UserWarning, match="going on without it.*--ref_cache none"):
        assert cache.get([b"\0" * 32]) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put({b"\0" * 32: torch.zeros(3)})
        assert cache.get([b"\0" * 32]) == {}


def test_only_rows_of_floats_are_kept(tmp_path):
    with pytest.raises(ValueError, match="one row of float32 or float64, not torch.bfloat16"):
        ReferenceCache(tmp_path, A, "float32").put({b"\0" * 32: torch.zeros(3, dtype=torch.bfloat16)})


def test_where_it_lies(tmp_path, monkeypatch):
    model = tiny_models.make_model()
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    assert open_cache("none", model) is None
    assert open_cache("auto", model).path.parent == tmp_path / "references"
    assert open_cache("auto", model).path.name.endswith("-float32.logp")
    with torch.autocast("cpu", torch.bfloat16):
        own = open_cache(str(tmp_path / "own"), model).path
    assert own.parent == tmp_path / "own"
    assert own.name.endswith("-bfloat16.logp")
    assert open_cache("auto", Steered(model, [])) is None, "its weights do not say all about it"


def test_the_identity_is_that_of_what_is_computed():
    model = tiny_models.make_model()
    plain = weights_identity(model)
    assert plain == model.digest
    other = tiny_models.make_model(seed=1)
    assert weights_identity(other) != plain
    adapted = LanguageModel(module=model.module, tokenizer=model.tokenizer)
    _put_fresh(adapted, Lora(r=2, seed=5))
    assert weights_identity(adapted) == plain, "a fresh adapter changes nothing"
    with torch.no_grad():
        next(p for name, p in adapted.module.named_parameters() if "lora_B" in name)[0, 0] = 1e-3
    assert weights_identity(adapted) != plain


@pytest.mark.parametrize("more", [{"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [7]}])
def test_an_adapter_that_brings_more_than_products_changes_something(more):
    from peft import LoraConfig, get_peft_model

    model = tiny_models.make_model()
    plain = weights_identity(model)
    module = get_peft_model(model.module, LoraConfig(r=2, target_modules="all-linear", **more))
    own = next(p for name, p in module.named_parameters() if "modules_to_save" in name or "trainable_tokens" in name)
    with torch.no_grad():
        own.add_(1.0)
    adapted = LanguageModel(module=module, tokenizer=model.tokenizer)
    assert base_digest(module, model.tokenizer) == plain
    assert weights_identity(adapted) != plain
