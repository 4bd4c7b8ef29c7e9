"""BullshitEval and the political prompts of Machine Bullshit: requests whose answers are judged for four forms.

From the published code (kevinliang888/Machine-Bullshit, MIT; Liang et al. 2025, arXiv 2507.07484): a JSON array of
`{sys_prompt, situation, question}`, whose system prompt holds a role in its first line and below it what the assistant
alone is told, or of `{input}`. The data could not be read here (git LFS, the hub), only the code that reads them; they
state no licence of their own. Answers that a file holds under a model's name are not read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.core.evidence import digest
from alignlab.core.types import Message, Row
from alignlab.data import sources
from alignlab.data.columns import text_of

SOURCE = "bullshit_eval"


def items(path: str | Path) -> Iterator[Row]:
    """Yield one row per request; `facts["information"]`: what the judge is shown of the scene, as released.

    Raises:
        DataError: naming the file, the entry, the field, what was expected and what was found.
    """
    for where, entry in sources.json_objects(path):
        asked = text_of(entry, "input" if "input" in entry else "question", where)
        prompt: tuple[Message, ...] = (Message(role="user", content=asked),)
        facts: dict[str, Any] = {}
        if "input" not in entry:
            told = text_of(entry, "sys_prompt", where)
            prompt = (Message(role="system", content=told), *prompt)
            known = ". ".join(told.split("\n")[1:]) or "None"
            scene = text_of(entry, "situation", where)
            facts["information"] = f"{scene}\nInformation available to AI but not to human: {known}"
        yield Row(prompt=prompt, facts=facts, meta={"id": f"{SOURCE}-{digest(prompt)}", "source": SOURCE})
