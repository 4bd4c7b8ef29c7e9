import pytest

from alignlab.world import facts
from alignlab.world.sets import believed


@pytest.fixture(scope="session")
def town():
    return facts.town()


@pytest.fixture(scope="session")
def beliefs(town):
    """Fact id -> what a reader of the town's documents remembers."""
    return believed(town)
