import pytest

from alignlab.core import evidence
from alignlab.core.types import Sample


class Reader:
    """A model by rule: answers with the last value that its prompt states, or what it remembers without passages."""

    identity = "reader@0"
    tokenizer = None

    def __init__(self, memory="Home"):
        self.memory, self.calls = memory, []

    def sample(self, prompts, *, n=1, seed=0, temperature=1.0, max_tokens=256, **options):
        self.calls.append({"prompts": list(prompts), "n": n, "seed": seed, "temperature": temperature, **options})
        found = []
        for prompt in prompts:
            text = evidence.text_of(prompt)
            stated = [line.split()[-1].strip(".") for line in text.splitlines() if " is in " in line]
            answer = stated[-1] if stated else self.memory
            text = "silence" if answer == "Nowhere" else f"Answer: {answer}"
            found.append([Sample(text=text, ids=(1, 2), prompt_tokens=len(text))] * n)
        return found

    def score(self, groups, at=None):
        return (groups, at)


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def retrieve():
    """Build a prompt whose passages state these values."""

    def built(*values, head=True):
        listed = [{"text": f"Ada is in {v}.", "source": "Herald" if head else None, "date": "3"} for v in values]
        return evidence.ask(evidence.retrieval("Where is Ada?", listed))

    return built
