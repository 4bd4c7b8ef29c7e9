"""Contrastive context weighting: p ~ softmax((1 + a) logits with passages - a logits without).

Training-free trust in passages with one dial: a = -1 answers from memory alone, 0 is the model as it is, a > 0
overstates the passages. Swept over a it traces the frontier a defence must rise above; Dialectical Alignment's brief
(arXiv 2404.00486, reconstructed) names it as a baseline. Logits in nats; greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.core.cards import Card, Claim
from alignlab.core.evidence import QUESTION, ask, is_retrieval, split, text_of
from alignlab.core.types import Intervention, Model, Prompt, Sample
from alignlab.engine.contrast import contrast

CARD = Card(
    title="Contrastive context weighting (baseline of Dialectical Alignment)",
    paper="arXiv:2404.00486",
    bibtex="""@article{yang2024contrastive,
  title = {Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs},
  author = {Yang, Shu and others},
  journal = {arXiv preprint arXiv:2404.00486},
  year = {2024}
}""",
    brief="dialectical-alignment",
    status="reconstructed",
    summary="weighs the logits with passages against the logits without them",
    smoke="alignlab eval poisoned_context --steer contrastive_context --per_cell 20 --output_dir {out}",
    claims=(Claim(metric="unparsed", relation="<=", bound=0.2),),
    deviations=("which contrastive baseline the paper ran, if any, could not be read",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The dial."""

    weight: float = -0.5
    """a: trust in passages, >= -1; the brief sweeps [-1, 1]"""


def intervene(artifact: None, cfg: Config, tools: Any) -> Intervention:
    """Return the decoder; needs no artifact and no tools."""
    del artifact, tools

    def decode(model: Model, prompts: Sequence[Prompt], **options: Any) -> list[list[Sample]]:
        answers = contrast(
            model, prompts, [_without(prompt) for prompt in prompts], cfg.weight, options.get("max_tokens", 256)
        )
        return [[answer] * options.get("n", 1) for answer in answers]

    return Intervention(spec=f"contrastive_context({cfg.weight:g})", decode=decode)


def _without(prompt: Prompt) -> Prompt:
    """Return the prompt without its passages; one that has none stays as it is."""
    text = text_of(prompt)
    return ask(split(text)[1].removeprefix(QUESTION).strip()) if is_retrieval(text) else prompt
