"""Tropes: arguments that recur in free answers to propositions, across wordings and across whoever gave them.

Sentences of all answers of one stance to one proposition are embedded and clustered by density; a cluster's most
central sentence stands for it, clusters that say the same are one trope, and tropes are counted and compared between
speakers. Wright et al. 2024, arXiv 2406.19238, section 4. Input: rows with `prompt`, the proposition, and
`completion`, the answer; `facts.agreement` (agree or disagree) where it is known, else it is read by rule. Distances
are cosine distances, in [0, 2]; shares are of the sentences that a trope holds. Without rows: the town's planted texts.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.core import stance
from alignlab.core.cards import Card, Claim
from alignlab.core.types import Figure, Metric, Result, Row, Table
from alignlab.engine.sentence_vectors import Vectors, encoder, unit
from alignlab.probes import _tropes_clusters as clusters
from alignlab.world import arguments

CARD = Card(
    title="LLM Tropes: Revealing Fine-Grained Values and Opinions in Large Language Models",
    paper="arXiv:2406.19238",
    bibtex="""@inproceedings{wright2024llm,
  title = {{LLM} Tropes: Revealing Fine-Grained Values and Opinions in Large Language Models},
  author = {Wright, Dustin and Arora, Arnav and Borenstein, Nadav and Yadav, Srishti and Belongie, Serge and
            Augenstein, Isabelle},
  booktitle = {Findings of EMNLP},
  year = {2024}
}""",
    brief="pct-tropes",
    status="reconstructed",
    summary="arguments that recur in free answers, by embedding and clustering, compared between speakers",
    smoke="alignlab probe tropes --output_dir {out}",
    claims=(
        Claim(metric="pair_f1", relation=">=", bound=0.8),
        Claim(metric="found", relation=">=", bound=0.8),
        Claim(metric="pair_f1_arguments - pair_f1_k_means", relation=">=", bound=-0.1),
    ),
    deviations=(
        "answers whose stance cannot be read are left out, where the release puts them with those who agree",
        "what is no argument is told by rule (a stance, or too few words beside the proposition's), not by a model",
        "the release's distillation is not published: here clusters whose means are near are one trope, and"
        " the central sentence of the largest is its name",
        "sentences end by rule, not by spaCy; `words`, the default, is no trained encoder",
    ),
)  # fmt: skip
LONGER = 20
"""characters above which a sentence counts, as released"""
EPS = {"words": 0.35}
"""encoder -> cosine distance of neighbours where the release's 0.15 for trained encoders does not fit"""
RELEASED = 0.15
SPANS = (0.5, 0.75, 1.25, 1.5)
"""multiples of `eps` under which tropes are counted again"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How sentences are embedded and clustered."""

    encoder: str = "words"
    """`words` (hashed words, no model), `minilm` (extra `sentences`), or a hub id or folder of a sentence encoder"""
    eps: float | None = None
    """cosine distance of neighbours, in (0, 2); default 0.15 as released, 0.35 for `words`"""
    neighbours: int = 10
    """neighbours that make a core sentence, itself included, >= 1; 10 as released"""
    smallest: int = 11
    """sentences of the smallest cluster that is kept, >= 1; 11 as released"""
    largest: float = 0.5
    """clusters holding this share of a group's clustered sentences are dropped, in (0, 1]; above 1 keeps all"""
    pooled: bool = False
    """cluster all propositions of one stance together, for few answers each; released: one by one"""
    merge: float | None = None
    """cosine distance of cluster means up to which clusters are one trope, in [0, 2); default: `eps`"""
    by: str = "model"
    """fact that tells the speakers apart whose tropes are compared"""
    seed: int = 0
    """of the planted texts"""

    def __post_init__(self) -> None:
        for name in ("eps", "merge"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 2:
                raise ValueError(f"--{name} {value}: expected a cosine distance in [0, 2)")
        if self.neighbours < 1 or self.smallest < 1 or self.largest <= 0:
            raise ValueError("--neighbours and --smallest must be at least 1, --largest above 0")


@dataclass(frozen=True, kw_only=True)
class Said:
    """One sentence of an answer."""

    text: str
    answer: int
    group: tuple[str, str]
    """(proposition, or empty where pooled; stance)"""
    proposition: str
    speaker: str
    truth: str | None


@dataclass(frozen=True, kw_only=True)
class Trope:
    """Clusters that say the same."""

    name: str
    members: tuple[int, ...]
    """places of its sentences"""


def measure(model: None, rows: Sequence[Row], cfg: Config) -> Result:
    """Return the tropes of the answers, how many each speaker has, how far they overlap, and how eps decides.

    Raises:
        ValueError: rows without an answer, no sentence to cluster, or an encoder that is not there.
    """
    del model
    answers = list(rows) or list(arguments.rows(cfg.seed))
    said, left_out = listed(answers, cfg)
    if not said:
        raise ValueError(
            f"tropes: no sentence of more than {LONGER} characters with a stance in {len(answers)} answers"
        )
    vectors = encoder(cfg.encoder)([one.text for one in said])
    eps = cfg.eps if cfg.eps is not None else EPS.get(cfg.encoder, RELEASED)
    found, labels = mined(said, vectors, eps, cfg)
    inside = sum(len(trope.members) for trope in found)
    metrics = {
        "tropes": Metric(value=float(len(found)), n=len(said)),
        "sentences_in_tropes": Metric(value=inside / len(said), n=len(said)),
        "answers_left_out": Metric(value=left_out / len(answers), n=len(answers)),
    }  # fmt: skip
    tables = {"tropes": table(found, said), **speakers(found, said, metrics)}
    tables["eps"] = sensitivity(said, vectors, eps, labels, cfg)
    if any(one.truth for one in said):
        metrics |= against_truth(said, vectors, labels, found)
    counts = [len(trope.members) for trope in found]
    figures = {}
    if counts:
        series = {"tropes": {"x": list(range(1, len(counts) + 1)), "y": counts}}
        figures["sizes"] = Figure(kind="line", series=series, x_label="trope by size", y_label="sentences")
    notes = (f"encoder {cfg.encoder}, eps {eps:g}: see the table `eps` for what another distance would have found.",)
    return Result(metrics=metrics, tables=tables, figures=figures, notes=notes)


def listed(rows: Sequence[Row], cfg: Config) -> tuple[list[Said], int]:
    """Return the sentences that count, and how many answers had no stance.

    Raises:
        ValueError: a row without `completion`.
    """
    found, left_out = [], 0
    for number, row in enumerate(rows):
        if row.completion is None:
            raise ValueError(
                f"tropes: row {row.meta.get('id', number)} has no answer; map it: --columns completion=..."
            )
        asked = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
        side = str(row.facts.get("agreement") or stance.read(row.completion, asked).stance)
        if side not in ("agree", "disagree"):
            left_out += 1
            continue
        truth = {str(text): name for text, name in row.facts.get("sentences", ())}
        found += [
            Said(
                text=text, answer=number, group=("" if cfg.pooled else asked, side), proposition=asked,
                speaker=str(row.facts.get(cfg.by, "")), truth=truth.get(text),
            )
            for text in stance.sentences(row.completion)
            if len(text) > LONGER
        ]  # fmt: skip
    return found, left_out


def argues(text: str, proposition: str) -> bool:
    """Whether a sentence says more than a stance: three content words beside the proposition's own."""
    own = set(stance.content(proposition))
    return len({word for word in stance.content(text) if word not in own} - STANCES) >= 3


STANCES = {word for text in (
    "agree disagree agreement disagreement strongly proposition statement opinion believe think support oppose stance "
    "view position firmly wholeheartedly respectfully completely idea notion claim",
) for word in stance.content(text)}  # fmt: skip
"""words of sentences that take a stance and no more"""


def mined(said: Sequence[Said], vectors: Vectors, eps: float, cfg: Config) -> tuple[list[Trope], list[int | None]]:
    """Return the tropes, largest first, and which each sentence is of (None for noise and for what was dropped)."""
    labels: list[int | None] = [None] * len(said)
    centres: list[int] = []
    members: list[list[int]] = []
    places: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(said):
        places.setdefault(one.group, []).append(place)
    for some in places.values():
        here = vectors[some]
        for cluster in clusters.kept(clusters.dense(here, eps, cfg.neighbours), cfg.smallest, cfg.largest):
            centre = some[clusters.representative(here, cluster)]
            if argues(said[centre].text, said[centre].proposition):
                for place in cluster:
                    labels[some[place]] = len(centres)
                centres.append(centre)
                members.append([some[place] for place in cluster])
    if not centres:
        return [], labels
    means = unit(np.stack([vectors[part].mean(0) for part in members]))
    same = clusters.merged(means, eps if cfg.merge is None else cfg.merge)
    found = []
    labels = [None if label is None else same[label] for label in labels]
    for name in range(max(same) + 1):
        parts = [part for part, group in enumerate(same) if group == name]
        largest = max(parts, key=lambda part: len(members[part]))
        whole = tuple(sorted(place for part in parts for place in members[part]))
        found.append(Trope(name=said[centres[largest]].text, members=whole))
    return sorted(found, key=lambda trope: -len(trope.members)), labels


def table(found: Sequence[Trope], said: Sequence[Said]) -> Table:
    """Return a line per trope."""
    whole, rows = sum(len(trope.members) for trope in found), []
    for trope in found:
        some = [said[place] for place in trope.members]
        sides = Counter(one.group[1] for one in some)
        rows.append((
            trope.name[:300], len(some), round(len(some) / whole, 4), len({one.answer for one in some}),
            len({one.proposition for one in some}), sides["agree"], sides["disagree"],
            ", ".join(sorted({one.speaker for one in some if one.speaker})),
        ))  # fmt: skip
    columns = ("trope", "sentences", "weight", "answers", "propositions", "agree", "disagree", "speakers")
    caption = "Arguments that recur; the sentence shown is the most central one, as some speaker wrote it."
    return Table(columns=columns, rows=tuple(rows), caption=caption)


def speakers(found: Sequence[Trope], said: Sequence[Said], metrics: dict[str, Metric]) -> dict[str, Table]:
    """Return the overlap of speakers' tropes (Jaccard), where there are several; adds its mean to `metrics`."""
    names = sorted({one.speaker for one in said if one.speaker})
    if len(names) < 2 or not found:
        return {}
    own = {
        name: {str(n) for n, t in enumerate(found) if any(said[p].speaker == name for p in t.members)} for name in names
    }
    rows, values = [], []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            value = clusters.jaccard(own[first], own[second])
            values.append(value)
            shared = len(own[first] & own[second])
            rows.append((first, second, len(own[first]), len(own[second]), shared, round(value, 4)))
    values = [value for value in values if not math.isnan(value)]
    if values:
        metrics["overlap"] = Metric(value=float(np.mean(values)), n=len(values))
    everywhere = sum(all(str(n) in own[name] for name in names) for n in range(len(found)))
    metrics["tropes_of_all"] = Metric(value=float(everywhere), n=len(found))
    columns = ("speaker", "other", "tropes", "tropes of the other", "shared", "Jaccard")
    return {"speakers": Table(columns=columns, rows=tuple(rows), caption="How far speakers' tropes are the same.")}


def sensitivity(
    said: Sequence[Said], vectors: Vectors, eps: float, labels: Sequence[int | None], cfg: Config
) -> Table:  # fmt: skip
    """Return the number of tropes under other distances, and how far the clusters stay (F1 over pairs)."""
    rows = []
    for span in SPANS:
        found, other = mined(said, vectors, min(eps * span, 1.99), cfg)
        rows.append((round(eps * span, 4), len(found), round(clusters.pair_f1(other, labels), 4)))
    columns = ("eps", "tropes", "pairs kept (F1)")
    return Table(columns=columns, rows=tuple(rows), caption=f"Other distances than {eps:g}.")


def against_truth(
    said: Sequence[Said], vectors: Vectors, labels: Sequence[int | None], found: Sequence[Trope]
) -> dict[str, Metric]:
    """Return F1 over pairs against the planted arguments, the share of these found, and k-means.

    `pair_f1_arguments` is over the sentences that argue alone, as is that of k-means, which is told more: which
    sentences argue at all, and how many arguments there are.
    """
    from sklearn.cluster import KMeans

    truth = [one.truth for one in said]
    metrics = {"pair_f1": Metric(value=clusters.pair_f1(labels, truth), n=len(said))}
    planted = {name for name, n in Counter(t for t in truth if t).items() if n >= 20}
    main = [Counter(truth[place] for place in trope.members).most_common(1)[0][0] for trope in found]
    metrics["tropes_without_argument"] = Metric(value=float(main.count(None)), n=len(main))
    if planted:
        metrics["found"] = Metric(value=len(planted & set(main)) / len(planted), n=len(planted))
    means: list[str | None] = [None] * len(said)
    for side in dict.fromkeys(one.group[1] for one in said):
        places = [place for place, one in enumerate(said) if one.group[1] == side and one.truth]
        count = len({truth[place] for place in places})
        if not count:
            continue
        for place, label in zip(
            places, KMeans(n_clusters=count, n_init=4, random_state=0).fit_predict(vectors[places])
        ):
            means[place] = f"{side}:{label}"
    argued = [place for place, name in enumerate(truth) if name]
    metrics["pair_f1_arguments"] = Metric(
        value=clusters.pair_f1([labels[p] for p in argued], [truth[p] for p in argued]), n=len(argued)
    )
    metrics["pair_f1_k_means"] = Metric(value=clusters.pair_f1(means, truth), n=len(argued))
    return metrics
