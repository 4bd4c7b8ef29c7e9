"""What the engine asks of the libraries below it, seen in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from alignlab.engine.hardware import DECIDED

NAMES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
MANY_SHAPES = """
import sys
if sys.argv[1] == "engine":
    import alignlab.engine
import torch

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

torch.set_num_threads(1)
map_ = torch.nn.Linear(192, 512, bias=False).to(torch.bfloat16)
def run(rows):
    map_(torch.randn(rows, 192, dtype=torch.bfloat16, requires_grad=True)).float().sum().backward()

run(100)
before = megabytes()
for rows in range(101, 701):
    run(rows)
print(megabytes() - before)
"""


FREED = """
import sys
import torch
from alignlab.engine.hardware import keep_freed_memory

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

held, before = sys.argv[1] == "keep" and keep_freed_memory(), megabytes()
torch.ones(64 * 2**20).sum()
print(held, megabytes() - before > 200)
"""


def process(code, *words, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in (*NAMES, *DECIDED)} | variables
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_many_lengths_in_bfloat16_take_a_bounded_room():
    """Unbounded, 600 shapes leave 900 MB of kernels where a processor has bfloat16 instructions; bounded, 150 MB."""
    assert float(process(MANY_SHAPES, "engine")) < 250


def test_the_users_own_bounds_win():
    code = f"import os, alignlab.engine; print(*(os.environ[name] for name in {NAMES}))"
    assert process(code) == "128 128"
    assert process(code, ONEDNN_PRIMITIVE_CACHE_CAPACITY="7") == "7 128"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
@pytest.mark.parametrize(
    ("word", "variables", "said"),
    [
        ("keep", {}, "True True"),
        ("leave", {}, "False False"),
        ("keep", {"MALLOC_MMAP_MAX_": "65536"}, "False False"),
        ("keep", {"MALLOC_TOP_PAD_": "65536"}, "False False"),
    ],
)
def test_freed_memory_is_kept_unless_the_user_says_otherwise(word, variables, said):
    assert process(FREED, word, **variables) == said
