import math
import warnings

import numpy as np
import pytest

from alignlab.stats.ranks import spearman


def test_ranks_count_not_distances():
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1e6]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, -9]) == pytest.approx(-1)
    # by hand: 1 - 6 (0 + 1 + 1) / (3 (9 - 1))
    assert spearman(np.array([1.0, 2.0, 3.0]), [1, 3, 2]) == pytest.approx(0.5)


@pytest.mark.parametrize(("one", "other"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_what_cannot_be_told_is_nan_without_a_warning(one, other):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(spearman(one, other))
