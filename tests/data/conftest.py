"""Real published files for golden tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


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
