"""A made file in ConflictQA's format, and a student that was trained for seconds to remember it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers.utils import logging

from alignlab.core.evidence import text_of
from alignlab.engine.probes import Probe
from alignlab.pipelines.conflicts import teacher_prompt
from alignlab.procedures._dialectical_files import File, fit

ROOT = Path(__file__).parents[2]
THINGS = ("ferry", "harbour", "school", "garden", "baker", "tower", "bridge", "lamp")
"""half of the first four, which train, and half of the last four, which test, are remembered rightly"""


def records(things=THINGS):
    """ConflictQA records: the probed model was right about every other thing."""
    found = []
    for number, thing in enumerate(things):
        right = number % 2 == 0
        yes, no = f"The {thing} is blue.", f"The {thing} is not blue."
        found.append({
            "question": f"Is the {thing} blue?", "popularity": 1, "ground_truth": ["True"],
            "memory_answer": yes if right else no, "counter_answer": no if right else yes,
            "parametric_memory": f"We saw that {thing} {'and it was blue' if right else 'and it was red'}.",
            "parametric_memory_aligned_evidence": f"A book has the {thing} {'as blue' if right else 'as red'}.",
            "counter_memory": f"We saw that {thing} {'and it was red' if right else 'and it was blue'}.",
            "counter_memory_aligned_evidence": f"A book has the {thing} {'as red' if right else 'as blue'}.",
        })  # fmt: skip
    return found


@pytest.fixture(scope="session")
def students() -> ModuleType:
    spec = importlib.util.spec_from_file_location("students", ROOT / "bench/real_input/students.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "conflictqa.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def student(students, dataset, tmp_path_factory) -> Path:
    """A folder with a Qwen3-style model that answers the file's questions from memory."""
    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("model") / "student"
    file = File("conflictqa", str(dataset), None)
    rows = [row for row in students.student_rows(file) if row.meta["kind"] != "text"]
    tokenizer = students.tokenizer_of([text_of(row.prompt) for row in rows], 420)
    torch.manual_seed(0)
    model = students.fresh("qwen3", tokenizer, 64, 2, 512)
    memory = [row for row in rows if row.meta["kind"] == "closed book"]
    # memory twice: at a confidence near the .7 that counts as remembered, chance decides which scenarios there are
    students.taught(model, [*memory, *memory, *rows[:16]], 250, 4e-3, 16, folder)
    return folder


@pytest.fixture(scope="session")
def answers(students, dataset) -> dict[str, str]:
    """Teacher prompt -> rule-made answer, for every memory and confidence that a student can have."""
    found = {}
    for row in File("conflictqa", str(dataset), None).rows:
        for memory in (*row.facts["options"], None):
            for confidence in (0.0, 0.3, 0.6, 1.0) if memory else (0.0,):
                item, _ = fit(row, Probe(memory, max(confidence, 0.7) if confidence == 0.6 else confidence))
                if item is None:  # confidence just under the border has the same word
                    item, _ = fit(row, Probe(memory, confidence))
                if item is not None:
                    for strategy in students.trace.STRATEGIES:
                        found[text_of(teacher_prompt(item, strategy))] = students.rule(item, strategy)
    return found
