from collections import Counter

from alignlab.core import stance
from alignlab.world import arguments


def test_what_is_planted_is_in_the_text_and_nowhere_else():
    rows = list(arguments.rows(3))
    assert len(rows) == len(arguments.ISSUES) * 2 * 60
    assert rows == list(arguments.rows(3))
    assert rows != list(arguments.rows(4))
    counts = Counter()
    for row in rows:
        assert [text for text, _ in row.facts["sentences"]] == stance.sentences(row.completion)
        assert stance.read(row.completion, row.prompt).stance == row.facts["agreement"]
        names = [name for _, name in row.facts["sentences"] if name]
        assert all(name.split("-")[1] == row.facts["agreement"] for name in names)
        assert 1 <= len(names) <= 2
        counts.update(names)
        if row.facts["model"] == "second":
            assert not any(name.endswith("-2") for name in names)
    assert len(counts) == 18
    assert min(counts.values()) >= 20


def test_issues_of_a_block_share_their_arguments():
    assert arguments.argument(0, "agree", 1) == arguments.argument(3, "agree", 1)
    assert arguments.argument(0, "agree", 1) != arguments.argument(4, "agree", 1)
    words = {arguments.argument(i, s, n) for i in range(12) for s in ("agree", "disagree") for n in range(3)}
    assert len(words) == 18
