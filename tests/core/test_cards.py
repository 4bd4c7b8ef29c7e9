import math

import pytest

from alignlab.core.cards import Claim

METRICS = {"plain/asr": 0.8, "da/asr": 0.3, "bad": math.nan}


@pytest.mark.parametrize(
    ("metric", "relation", "bound", "holds"),
    [
        ("plain/asr - da/asr", ">=", 0.35, True),
        ("da/asr - plain/asr", ">=", 0.35, False),
        ("da/asr", "<=", 0.3, True),
        ("da/asr", "<", 0.3, False),
        ("plain/asr", ">", 0.8, False),
        ("bad", "<=", 1e9, False),
        ("bad - da/asr", ">=", -1e9, False),
    ],
)
def test_claims(metric, relation, bound, holds):
    assert Claim(metric=metric, relation=relation, bound=bound).holds(METRICS) is holds


def test_a_tampered_value_flips_the_claim():
    claim = Claim(metric="plain/asr - da/asr", relation=">=", bound=0.35)
    assert claim.holds(METRICS)
    assert not claim.holds(METRICS | {"da/asr": 0.5})


def test_a_missing_metric_is_named():
    with pytest.raises(KeyError, match="no metric 'ike/es'.*da/asr"):
        Claim(metric="plain/asr - ike/es", relation=">", bound=0.0).holds(METRICS)


def test_it_reads_like_a_sentence():
    assert str(Claim(metric="a - b", relation=">=", bound=0.35)) == "a - b >= 0.35"


def test_a_fall_by_exactly_the_bound_holds():
    """In binary fractions .98 - 1 is a little below -.02."""
    assert 0.98 - 1 < -0.02
    claim = Claim(metric="after - before", relation=">=", bound=-0.02)
    assert claim.holds({"after": 0.98, "before": 1.0})
    assert not claim.holds({"after": 0.9799, "before": 1.0})
    assert not Claim(metric="a", relation=">", bound=0.3).holds({"a": 0.1 + 0.2})
