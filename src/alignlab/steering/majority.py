"""Majority wrapper: ask about each passage alone, then take the commonest answer.

Isolation keeps one passage from colouring how another is read; whoever writes most passages still wins. The
training-free baseline of Dialectical Alignment (arXiv 2404.00486; reconstructed). Ties go to the earliest passage;
prompts without passages are answered as they are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.core.answers import final_answer, normalise
from alignlab.core.cards import Card, Claim
from alignlab.core.evidence import ask, is_retrieval, split, text_of
from alignlab.core.trace import MARKER
from alignlab.core.types import Intervention, Model, Prompt, Sample

CARD = Card(
    title="Majority wrapper (baseline of Dialectical Alignment)",
    paper="arXiv:2404.00486",
    bibtex="""@article{yang2024majority,
  title = {Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs},
  author = {Yang, Shu and others},
  journal = {arXiv preprint arXiv:2404.00486},
  year = {2024}
}""",
    brief="dialectical-alignment",
    status="reconstructed",
    summary="asks about each passage alone and takes the commonest answer",
    smoke="alignlab eval poisoned_context --steer majority --per_cell 20 --output_dir {out}",
    claims=(Claim(metric="clean", relation=">=", bound=0.9),),
    deviations=("isolate, then vote: how the paper's comparison aggregates could not be read",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the vote."""

    least_votes: int = 1
    """an answer with fewer votes is not given, >= 1"""


def intervene(artifact: None, cfg: Config, tools: Any) -> Intervention:
    """Return the decoder; needs no artifact and no tools."""
    del artifact, tools

    def decode(model: Model, prompts: Sequence[Prompt], **options: Any) -> list[list[Sample]]:
        isolated = [_isolated(prompt) for prompt in prompts]
        flat = [alone for group in isolated for alone in group]
        options.pop("progress", None)  # counts prompts, and there are several to an answer here
        answers = iter(model.sample(flat, **{**options, "n": 1, "temperature": 0.0}))
        given = [[next(answers)[0] for _ in group] for group in isolated]
        return [[_vote(samples, cfg.least_votes)] * options.get("n", 1) for samples in given]

    return Intervention(spec=f"majority({cfg.least_votes})", decode=decode)


def _isolated(prompt: Prompt) -> list[Prompt]:
    """Return one prompt per passage; a prompt without passages is asked as it is."""
    text = text_of(prompt)
    if not is_retrieval(text):
        return [prompt]
    blocks, question = split(text)
    return [ask(f"{block}\n{question}") for block in blocks]


def _vote(samples: Sequence[Sample], least: int) -> Sample:
    found = [answer for sample in samples if (answer := final_answer(sample.text, MARKER))]
    votes = Counter(normalise(answer) for answer in found)
    winner = next((a for a in found if votes[normalise(a)] == max(votes.values()) >= least), None)
    text = f"{MARKER} {winner}" if winner is not None else ""
    return Sample(text=text, prompt_tokens=sum(s.prompt_tokens for s in samples))
