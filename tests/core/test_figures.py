import math

from alignlab.core.figures import bars
from alignlab.core.types import Metric


def test_one_bar_per_metric_that_is_known():
    shown = {
        "a": Metric(value=0.5, n=4, low=0.2, high=0.7), "b": Metric(value=0.3, n=4), "c": Metric(value=math.nan, n=0)
    }  # fmt: skip
    (figure,) = bars("shares", shown, "share").values()
    assert (figure.kind, figure.y_label) == ("bars", "share")
    assert figure.series["share"] == {"label": ["a", "b"], "y": [0.5, 0.3], "low": [0.2, 0.3], "high": [0.7, 0.3]}


def test_a_figure_of_nothing_is_none():
    assert bars("shares", {}, "share") == bars("shares", {"c": Metric(value=math.nan, n=0)}, "share") == {}
