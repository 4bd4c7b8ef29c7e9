"""Shared fixtures. `tiny_models.py` beside this file can be imported by every test."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: what a test proves does not depend on the clock.
settings.register_profile("alignlab", deadline=None)
settings.load_profile("alignlab")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
# Where there is no network, the hub is asked again and again before an error that a test waits for
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from proofs import (  # noqa: E402, F401 - pytest finds its hooks here
    pytest_addoption,
    pytest_runtest_call,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_unconfigure,
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests, and the processes that they start, leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def dpo_keeps_its_theorem():
    """Whatever trains DPO holds each batch against theorem 4.1 (`tests/theorem.py`)."""
    import theorem
    from alignlab.objectives import dpo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpo, "loss", dpo.loss)
        theorem.watch(dpo)
        yield


@pytest.fixture(scope="session")
def tiny_models():
    """The module tests/tiny_models.py: make_model, make_module, make_tokenizer."""
    import tiny_models

    return tiny_models


@pytest.fixture
def tiny_model(tiny_models):
    """A fresh random Llama of 0.1M parameters with its tokenizer."""
    return tiny_models.make_model("llama")


@pytest.fixture
def published():
    """Path of a published file under `$ALIGNLAB_DATA`, else `../shared/data` beside the checkout.

    Without the file the test skips and says so; where CI=true it fails, since a skipped golden test proves nothing.
    """

    def path_of(name: str) -> Path:
        folder = Path(os.environ.get("ALIGNLAB_DATA") or REPOSITORY.parent / "shared" / "data")
        path = folder / name
        if not path.is_file():
            reason = f"published file {name} is not in {folder}; set ALIGNLAB_DATA to the folder that holds it"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return path_of
