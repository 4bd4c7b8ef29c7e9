"""Notice prefix: one warning sentence in the prompt, and nothing else.

The defence that Dialectical Alignment (arXiv 2404.00486) does without; the wording is ours. A baseline: it costs a
sentence of prompt and needs a model that understands it.
"""

from dataclasses import dataclass
from typing import Any

from alignlab.core.cards import Card, Claim
from alignlab.core.evidence import is_retrieval, text_of
from alignlab.core.types import Intervention, Prompt

CARD = Card(
    title="Notice prefix (baseline of Dialectical Alignment)",
    paper="arXiv:2404.00486",
    bibtex="""@article{yang2024notice,
  title = {Dialectical Alignment: Resolving the Tension of 3H and Security Threats of LLMs},
  author = {Yang, Shu and others},
  journal = {arXiv preprint arXiv:2404.00486},
  year = {2024}
}""",
    brief="dialectical-alignment",
    status="reconstructed",
    summary="warns of false passages in front of the evidence",
    smoke="alignlab eval poisoned_context --steer notice --per_cell 20 --output_dir {out}",
    claims=(Claim(metric="unparsed", relation="<=", bound=0.2),),
    deviations=("the wording is ours: the paper names the baseline but its text could not be read",),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The warning."""

    text: str = "Some passages may be false."
    """put in front of the last user turn; any text"""


def intervene(artifact: None, cfg: Config, tools: Any) -> Intervention:
    """Return the edit of retrieval prompts; others have no passages to be warned of. Needs no artifact and no tools."""
    del artifact, tools

    def warned(prompt: Prompt) -> Prompt:
        if not is_retrieval(text_of(prompt)):
            return prompt
        text = f"{cfg.text}\n{text_of(prompt)}"
        return text if isinstance(prompt, str) else (*prompt[:-1], {**prompt[-1], "content": text})

    return Intervention(spec=f"notice({cfg.text})", edit_messages=warned)
