"""From prompts with their completions to rows in which every distinct node is computed once.

A node is a token after everything that precedes it. Prompts with the same tokens are one prompt; of completions after
one prompt that begin alike, one that another continues is a part of it: equal completions, a solution up to each of its
steps, or options of a single token cost nothing more. A completion's last scored token is predicted but never read.

A row is laid out without gaps as [prompt | completion | completion | ... | next prompt | ...]; attention keeps prompts
apart, and completions blind to each other. Completions that are only looked at, without gradient, are kept out of it:
they are read `after` it, as [completion | completion | ...], on the prompts' keys and values, so that nobody walks back
through them. Pure Python, and the same rows for the same input, always.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """A prompt and its distinct completions as they lie side by side in a row."""

    prompt: int
    """tokens of the prompt, >= 1"""
    completions: tuple[int, ...]
    """tokens read of each distinct completion, each >= 1, long ones first; none where only the prompt is read"""

    @property
    def size(self) -> int:
        """Tokens of the span."""
        return self.prompt + sum(self.completions)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that the model sees."""
        return self.prompt + max(self.completions, default=0)

    def pieces(self, *, alone: bool = False) -> list[tuple[int, int]]:
        """Return what attention computes as one: position of the first query, and queries.

        The first completion is read on with its prompt, as one causal square. `alone`: the prompt was read before.
        """
        first = [] if alone else [(0, self.prompt + sum(self.completions[:1]))]
        return first + [(self.prompt, length) for length in self.completions[0 if alone else 1 :]]


@dataclass(frozen=True)
class PlannedRow:
    """One row of tokens, where its logits are wanted, and what they predict."""

    ids: Ids
    positions: Ids
    """of each token in its own sequence: a completion goes on where its prompt ends"""
    spans: tuple[Span, ...]
    heads: Ids
    """places in the row at which logits are wanted, by output head, then ascending"""
    routes: Ids
    """output head of each of `heads`"""
    scored: tuple[tuple[int, int, int], ...]
    """(index into `heads`, completion, column): a scored token and where it is predicted; ascending"""
    targets: Ids
    """the scored tokens themselves"""
    after: "PlannedRow | None" = None
    """completions alone, to be read on the keys and values of this row's prompts: as many spans, in the same order"""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that the model sees."""
        return max(span.longest for span in self.spans)


@dataclass(frozen=True)
class _Part:
    """A prompt, what is read after it, and the scored tokens with the completion (by place) that predicts them."""

    prompt: Ids
    reads: tuple[Ids, ...]
    scored: tuple[tuple[int, int, int], ...]
    """(place in `reads`, or -1 for the prompt alone; completion; column)"""
    later: tuple[Ids, ...] = ()
    """what is read after the row, and its scored tokens likewise"""
    scored_later: tuple[tuple[int, int, int], ...] = ()

    @property
    def size(self) -> int:
        return len(self.prompt) + sum(map(len, self.reads))


def plan(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    group: Sequence[int],
    scored: Sequence[Sequence[int]] | None = None,
    *,
    row_tokens: int,
    looked_at: Collection[int] = (),
    head: Sequence[int] | None = None,
) -> list[PlannedRow]:
    """Lay prompts and completions out in rows.

    Args:
        prompts: P lists of token ids, none empty where a completion belongs to it.
        completions: N lists of token ids.
        group: N indices into prompts.
        scored: N lists of scored columns, ascending; None scores every token.
        row_tokens: tokens of a row, >= 1; a prompt is not cut off its completions, so a longer span is a row by itself.
        looked_at: completions to be read `after` the row of their prompt, but for what other completions read anyway.
        head: N output heads; what completions of several heads read is still read once. None: all of head 0.

    Returns:
        Rows by first fit, large spans first. Completions without a scored token are in none of them.

    Raises:
        ValueError: a completion whose prompt has no tokens; `row_tokens` < 1.
    """
    if row_tokens < 1:
        raise ValueError(f"row_tokens: expected a whole number >= 1, got {row_tokens}")
    members: dict[Ids, list[int]] = {}
    columns = [tuple(range(len(ids))) for ids in completions] if scored is None else [tuple(c) for c in scored]
    for n, wanted in enumerate(columns):
        if wanted:
            members.setdefault(tuple(prompts[group[n]]), []).append(n)
    if () in members:
        raise ValueError("a prompt without tokens; a causal model needs one before the first scored token")
    parts = [_part(prompt, found, completions, columns, looked_at) for prompt, found in members.items()]
    rows: list[list[_Part]] = []
    room: list[int] = []
    for part in sorted(parts, key=lambda p: -p.size):
        place = next((k for k, left in enumerate(room) if left >= part.size), None)
        if place is None:
            rows.append([])
            room.append(row_tokens)
            place = len(rows) - 1
        rows[place].append(part)
        room[place] -= part.size
    return [_row(row, completions, head or [0] * len(completions)) for row in rows]


def _part(
    prompt: Ids, members: Sequence[int], completions: Sequence[Sequence[int]], columns: Sequence[Sequence[int]],
    looked_at: Collection[int],
) -> _Part:  # fmt: skip
    """Fold the completions of one prompt that begin alike."""
    reads = {n: tuple(completions[n][: columns[n][-1]]) for n in members}
    kept, place = _folded([read for n, read in reads.items() if n not in looked_at])
    for read in set(reads.values()) - set(place):
        inside = next((k for k, other in enumerate(kept) if other[: len(read)] == read), None)
        if inside is not None or not read:
            place[read] = -1 if inside is None else inside
    later, place_later = _folded([read for read in reads.values() if read not in place])
    scored, scored_later = [], []
    for n in members:
        for t in columns[n]:
            # the prompt's end predicts a first token, whoever reads what follows
            if t == 0 or reads[n] in place:
                scored.append((place.get(reads[n], -1), n, t))
            else:
                scored_later.append((place_later[reads[n]], n, t))
    return _Part(prompt, kept, tuple(scored), later, tuple(scored_later))


def _folded(reads: Sequence[Ids]) -> tuple[tuple[Ids, ...], dict[Ids, int]]:
    """Return what must be read, and for each of `reads` its place there, -1 for nothing."""
    continued: dict[Ids, Ids] = {}
    longest: Ids = ()
    # In lexicographic order, what continues a sequence stands right behind it
    for read in sorted(set(reads), reverse=True):
        if longest[: len(read)] != read:
            longest = read
        continued[read] = longest
    # The longest first: attention reads it on with the prompt, without a mask
    distinct = dict.fromkeys(continued[read] for read in reads if continued[read])
    kept = tuple(sorted(distinct, key=len, reverse=True))
    places = {read: k for k, read in enumerate(kept)}
    return kept, {read: places.get(other, -1) for read, other in continued.items()}


def _row(
    parts: Sequence[_Part], completions: Sequence[Sequence[int]], head: Sequence[int], *, after: bool = False
) -> PlannedRow:
    ids: list[int] = []
    positions: list[int] = []
    wanted: list[tuple[int, int, int]] = []
    for part in parts:
        last = len(ids) + len(part.prompt) - 1
        if not after:
            ids += part.prompt
            positions += range(len(part.prompt))
        starts = []
        for read in part.later if after else part.reads:
            starts.append(len(ids))
            ids += read
            positions += range(len(part.prompt), len(part.prompt) + len(read))
        # column t is predicted one token before it: by the prompt's end for the first
        found = part.scored_later if after else part.scored
        wanted += [(starts[k] + t - 1 if t else last, n, t) for k, n, t in found]
    places = sorted({(head[n], place) for place, n, _ in wanted})
    index = {found: k for k, found in enumerate(places)}
    scored = tuple(sorted((index[head[n], place], n, t) for place, n, t in wanted))
    return PlannedRow(
        ids=tuple(ids), positions=tuple(positions), heads=tuple(place for _, place in places),
        routes=tuple(route for route, _ in places),
        spans=tuple(Span(len(p.prompt), tuple(map(len, p.later if after else p.reads))) for p in parts),
        scored=scored, targets=tuple(completions[n][t] for _, n, t in scored),
        after=_row(parts, completions, head, after=True) if not after and any(p.later for p in parts) else None,
    )  # fmt: skip


def attention_pairs(span: Span) -> int:
    """Return P^2 + sum over completions of (c^2 + 2 P c): twice the (query, key) pairs of a span, bar the diagonal.

    Times 2 x heads x head dimension x layers, it is the FLOPs of attention in a forward pass.
    """
    return span.prompt**2 + sum(c * c + 2 * span.prompt * c for c in span.completions)
