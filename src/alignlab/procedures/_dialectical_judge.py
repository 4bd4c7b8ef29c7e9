"""How far the judge of the strategy search can be trusted: verdicts that could be read, agreement with gold answers."""

from collections import defaultdict
from collections.abc import Sequence

from alignlab.core.types import Table
from alignlab.pipelines.conflicts import Attempt, cell_of, read, right
from alignlab.procedures._dialectical_report import cell_name

UNREAD = (
    "no reply of the judge could be read: it is asked for 'Outcome: yes' or 'no' and then 'Process: ' and 1 to 10; "
    "its replies are in answers/ of the run folder. Name another --judge"
)


def readable(attempts: Sequence[Attempt]) -> int:
    """Return how many of the teacher's answers have a score."""
    return sum(attempt.score is not None for attempt in attempts)


def agreement(attempts: Sequence[Attempt]) -> Table | None:
    """Return how often the judge's outcome is the gold answer's, by kind of conflict; None where nobody judged.

    The judge is fooled by the passages it is shown, so a single figure over all kinds would hide where.
    """
    if all(attempt.judged_right is None for attempt in attempts):
        return None
    cells: dict[str, list[bool | None]] = defaultdict(list)
    for attempt in attempts:
        if attempt.item.facts["gold"] is not None:
            said, true = attempt.judged_right, right(attempt.item, read(attempt.item, attempt.text))
            for cell in (cell_name(cell_of(attempt.item)), "all"):
                cells[cell].append(None if said is None else said == true)
    rows = []
    for cell, found in sorted(cells.items()):
        known = [same for same in found if same is not None]
        share = round(sum(known) / len(known), 4) if known else None
        rows.append((cell, len(found), round(len(known) / len(found), 4), share))
    caption = "The judge's 'Outcome' against the gold answer, which the judge was shown, among the verdicts it gave."
    return Table(columns=("cell", "answers", "readable", "agrees"), rows=tuple(rows), caption=caption)
