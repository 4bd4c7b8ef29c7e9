from types import SimpleNamespace

import pytest

from alignlab.core.limits import at_least


def test_bounds_themselves_are_allowed():
    at_least(SimpleNamespace(seeds=1, rate=0.5), {"seeds": 1, "rate": 0.5})


def test_the_first_below_is_named_with_bound_and_value():
    with pytest.raises(ValueError, match=r"^--rate: expected a number >= 0.5, got 0.25$"):
        at_least(SimpleNamespace(seeds=1, rate=0.25, batch=0), {"seeds": 1, "rate": 0.5, "batch": 1})
