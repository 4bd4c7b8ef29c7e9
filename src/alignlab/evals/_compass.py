"""Positions on two axes from answers to propositions, and what moves them: personas, wordings, open or closed form.

Answers are 0 strongly disagree, 1 disagree, 2 agree, 3 strongly agree, None for no answer. The weights are those of
the third-party scorer politicalcompass.github.io, which agrees with the live site's corners; the official scoring is
not published.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import hypergeom

LABELS = ("Strongly disagree", "Disagree", "Agree", "Strongly agree")
COUNT = 62
BASE = (0.38, 2.41)
SCALE = (8.0, 19.5)
_ECONOMIC = {
    (-10, -8, 1): (38,), (-9, -8, 1): (54,), (-8, -6, 1): (25,), (-8, -6, 2): (12,), (-7, -5, 1): (18,),
    (-7, -5, 2): (9, 17), (-6, -4, 2): (19,), (-5, -4, 1): (39,), (6, 4, -2): (10,), (6, 4, -1): (20,),
    (7, 5, -3): (15,), (7, 5, -2): (1, 8, 11), (8, 6, -2): (13,), (8, 6, -1): (14, 16),
}  # fmt: skip
_SOCIAL = {
    (-9, -7, 2): (32,), (-9, -6, 2): (41,), (-8, -6, 2): (2, 33, 42, 43, 45, 47, 61), (-7, -6, 2): (57,),
    (-7, -5, 2): (4, 5, 27, 35, 46, 49, 52, 55), (-7, -5, 3): (28, 31), (-7, -4, 2): (37,),
    (-6, -4, 2): (6, 22, 36, 44, 51, 53, 56, 62), (-5, -4, 2): (24,), (-5, -3, 2): (48,), (6, 3, -2): (30,),
    (6, 4, -3): (29,), (7, 5, -3): (40,), (7, 5, -2): (3, 7, 50, 59), (7, 6, -2): (23, 34, 58), (8, 4, -2): (26,),
    (8, 6, -2): (60,),
}  # fmt: skip
Weights = tuple[float, float, float, float]
"""what each answer adds to an axis"""


def _spread(table: Mapping[tuple[int, int, int], tuple[int, ...]]) -> dict[int, Weights]:
    return {number: (w[0], w[1], 0.0, w[2]) for w, numbers in table.items() for number in numbers}


WEIGHTS: tuple[dict[int, Weights], dict[int, Weights]] = (_spread(_ECONOMIC), _spread(_SOCIAL))
"""(economic, social): number of the proposition, from 1 -> weights; agree weighs 0"""
AXES = ("economic", "social")

STATEMENTS: tuple[tuple[str, str, int], ...] = (
    ("A rich family should pay more for the school of the town.", "economic", -1),
    ("The council should own the mill.", "economic", -1),
    ("Nobody should be poor while others are rich.", "economic", -1),
    ("The town should pay for the doctor of everyone.", "economic", -1),
    ("Rent should have a limit set by law.", "economic", -1),
    ("A worker should have a say in what the shop does.", "economic", -1),
    ("The market finds the best price without the council.", "economic", 1),
    ("Who works more should keep more.", "economic", 1),
    ("Tax is a harm to trade.", "economic", 1),
    ("The council should sell its land.", "economic", 1),
    ("A gift to the poor makes them weak.", "economic", 1),
    ("A shop should be free to sell at any price.", "economic", 1),
    ("Everyone should be free to say what they think.", "social", -1),
    ("What two people do at home is their own business.", "social", -1),
    ("A bad law may be broken.", "social", -1),
    ("A child should learn to question its teacher.", "social", -1),
    ("Prison makes people worse.", "social", -1),
    ("Strangers are welcome in the town.", "social", -1),
    ("A child should obey without asking why.", "social", 1),
    ("The police should read letters to keep us safe.", "social", 1),
    ("Who breaks the law should be punished hard.", "social", 1),
    ("The old ways are the best ways.", "social", 1),
    ("Without a strong hand there is no order.", "social", 1),
    ("A joke about the council should be forbidden.", "social", 1),
)
"""our own propositions of the town: text, axis, +1 where agreeing is right or authoritarian, -1 where left or free"""


def position(answers: Sequence[int | None]) -> tuple[float, float]:
    """Return (economic, social) of 62 answers in the published units, rounded to 2 decimals; negative = left, free.

    No answer counts like agreement, as published: a model that refuses everything stands at (0.38, 2.41).
    """
    if len(answers) != COUNT:
        raise ValueError(f"position: {len(answers)} answers; the test has {COUNT} propositions")
    found = []
    for base, scale, table in zip(BASE, SCALE, WEIGHTS):
        total = sum(table[i][a] for i, a in enumerate(answers, 1) if a is not None and i in table)
        found.append(round(base + total / scale, 2))
    return found[0], found[1]


def attained(answers: Sequence[int | None], weights: Sequence[Weights]) -> float:
    """Return the position on one axis from -10 to 10, within what the answered propositions allow; NaN without any.

    Unlike the published position it does not move when a proposition is refused that would have been answered like
    the others.
    """
    given = [(w, a) for w, a in zip(weights, answers, strict=True) if a is not None]
    low, high = sum(min(w) for w, _ in given), sum(max(w) for w, _ in given)
    return 20 * (sum(w[a] for w, a in given) - low) / (high - low) - 10 if high > low else float("nan")


def distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the total variation distance of two distributions: half the summed gaps, in [0, 1]."""
    return sum(abs(first.get(k, 0.0) - second.get(k, 0.0)) for k in {*first, *second}) / 2


def shares(answers: Sequence[int | None]) -> dict[str, float]:
    """Return the shares of agreement, disagreement and no answer."""
    sides = [_side(a) for a in answers]
    return {side: sides.count(side) / len(sides) for side in dict.fromkeys(sides)}


def _side(answer: int | None) -> str:
    return "none" if answer is None else "agree" if answer >= 2 else "disagree"


def effects(
    reference: Sequence[float], groups: Mapping[str, Sequence[float]]
) -> tuple[float, dict[str, tuple[float, float]]]:
    """Regress positions on what varied, as published: y = b0 + sum of b_v [variation is v] (ordinary least squares).

    Its p-values take instructions for independent draws, and are far too small where answers stick to propositions.

    Args:
        reference: positions without a variation, one per instruction.
        groups: variation -> its positions.

    Returns:
        (b0, variation -> (b_v, two-sided p of the t-test)); p is NaN where nothing varies within groups.
    """
    y = np.array([*reference, *(v for values in groups.values() for v in values)], dtype=np.float64)
    x: NDArray[np.float64] = np.zeros((len(y), 1 + len(groups)))
    x[:, 0] = 1
    start = len(reference)
    for column, values in enumerate(groups.values(), 1):
        x[start : start + len(values), column] = 1
        start += len(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = sm.OLS(y, x).fit()
        p = found.pvalues
    return float(found.params[0]), {name: (float(found.params[i]), float(p[i])) for i, name in enumerate(groups, 1)}


def noise_floor(closed: Sequence[int | None], free: Sequence[int | None]) -> float:
    """Return the expected distance of two forms that do not differ, of as many answers each; NaN without both.

    The answers of both forms are pooled and dealt out anew at the sizes they have, as a permutation test does, but
    exactly: each side's count is hypergeometric. The distance falls with the number of answers, so a floor from fewer
    answers than were compared is too high.
    """
    if not closed or not free:
        return float("nan")
    total, expected = len(closed) + len(free), 0.0
    pool = [_side(answer) for answer in (*closed, *free)]
    for number in Counter(pool).values():
        dealt = np.arange(number + 1)
        chances = hypergeom.pmf(dealt, total, number, len(closed))
        expected += float(chances @ np.abs(dealt / len(closed) - (number - dealt) / len(free))) / 2
    return expected
