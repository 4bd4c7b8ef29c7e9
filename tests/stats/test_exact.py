import math

import pytest
import scipy.stats

from alignlab.stats.exact import chi_square, fisher, mcnemar

CONDITIONS = [[17, 41], [39, 2], [20, 39], [51, 0]]
"""customer's and firm's product, by condition (principal-agent, Shell Oil, gpt-3.5-turbo)"""


def test_the_specified_tables():
    found = fisher([[80, 37], [2, 90]])
    assert found.statistic == pytest.approx(97.297297, abs=1e-6)
    assert found.p == pytest.approx(7.014010e-26, rel=1e-6)
    found = chi_square(CONDITIONS)
    assert (found.statistic, found.dof) == (pytest.approx(95.162552, abs=1e-6), 3)
    assert found.p == pytest.approx(1.703654e-20, rel=1e-6)
    assert found.cramers_v == pytest.approx(0.674776, abs=1e-6)
    # of a binary outcome Kruskal and Wallis's H is chi-square times (n - 1) / n
    assert found.statistic * 208 / 209 == pytest.approx(94.707228, abs=1e-6)


def test_fisher_by_counting():
    # margins 4 and 4: the tables as unlikely as the observed one are those with 4, 0 and 0, 4 on the diagonal
    assert fisher([[4, 0], [0, 4]]).p == pytest.approx(2 / math.comb(8, 4))
    assert math.isinf(fisher([[4, 0], [0, 4]]).statistic)
    assert fisher([[4, 0], [0, 4]]).cramers_v == pytest.approx(1.0)
    assert fisher([[2, 2], [2, 2]]).cramers_v == 0.0


def test_empty_rows_say_nothing():
    assert chi_square([[3, 5], [0, 0]]).p == 1.0
    assert chi_square([[3, 5], [0, 0], [5, 3]]).dof == 1


def test_mcnemar():
    assert mcnemar(1, 9) == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(3, 12) == pytest.approx(scipy.stats.binomtest(12, 15).pvalue)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fisher([[1, 2, 3], [1, 2, 3]]), "use chi_square"),
        (lambda: fisher([[1, -2], [1, 2]]), "table of counts"),
        (lambda: chi_square([[1, 2]]), "at least 2 rows"),
        (lambda: chi_square([[0.5, 2], [1, 2]]), "table of counts"),
        (lambda: mcnemar(-1, 2), "negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
