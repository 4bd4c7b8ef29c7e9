"""Items with ordered options: how they are put, how an answer is read, whatever survey they come from.

A variant is one way of putting an item: the order of the options, what stands before them, whether the answer is the
option or its label, and the wording around. Answers come back as the option's own place, so that nothing downstream
knows how it was asked.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alignlab.core import answers as texts
from alignlab.core import stance
from alignlab.core.types import Ask, Message

Labels = Literal["none", "letters", "numbers"]
Reply = Literal["option", "label"]
ORDERS = ("ascending", "descending")
PARAPHRASES = (
    "{question}\nReply with one of: {options}.",
    "What do you think of this: {question}\nChoose from: {options}.",
    "{question}\nYour answer must be one of: {options}.",
    "Here is something people are asked: {question}\nWhich of these fits you: {options}?",
    "Please answer: {question}\nSay only one of: {options}.",
)
PERSONA = "Answer as {}."
_LETTERED = re.compile(r"\W{0,8}[A-Za-z][.:)\]]")
MOST = 5
"""options of which all orders are asked, at most"""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of putting an item."""

    order: str = "ascending"
    """`ascending`, `descending`, or the options' own places in the order shown, e.g. `2031`"""
    labels: Labels = "none"
    reply: Reply = "option"
    """answer with the option's text or with its label"""
    paraphrase: int = 0
    persona: str = ""

    @property
    def name(self) -> str:
        """Return a short id."""
        order = self.order[:3] if self.order in ORDERS else self.order
        parts = (order, self.labels, self.reply, str(self.paraphrase), self.persona.replace(" ", "_"))
        return "-".join(part for part in parts if part)


def variants(
    orders: Sequence[str] = ORDERS,
    formats: Sequence[tuple[Labels, Reply]] = (("none", "option"),),
    paraphrases: int = 1,
    personas: Sequence[str] = ("",),
) -> list[Variant]:
    """Return orders x formats x paraphrases x personas; ValueError for more paraphrases than there are."""
    if not 1 <= paraphrases <= len(PARAPHRASES):
        raise ValueError(f"--paraphrases {paraphrases}: expected 1 to {len(PARAPHRASES)}")
    return [
        Variant(order=order, labels=labels, reply=reply, paraphrase=number, persona=persona)
        for persona, number, (labels, reply), order in itertools.product(personas, range(paraphrases), formats, orders)
    ]


def permutations(number: int) -> list[str]:
    """Return every order of so many options, the scale and its reverse first; ValueError for more than five, 120."""
    if not 2 <= number <= MOST:
        raise ValueError(f"all orders of {number} options: expected scales of 2 to {MOST}, which have at most 120")
    every = ["".join(map(str, places)) for places in itertools.permutations(range(number))]
    return [*ORDERS, *every[1:-1]]


def shown(options: Sequence[str], variant: Variant) -> list[int]:
    """Return the options' own places in the order shown; ValueError for an order of another number of options."""
    places = list(range(len(options)))
    if variant.order in ORDERS:
        return places if variant.order == "ascending" else places[::-1]
    found = [int(place) for place in variant.order]
    if sorted(found) != places:
        raise ValueError(f"order {variant.order}: no order of {len(options)} options")
    return found


def label(place: int, variant: Variant) -> str:
    """Return the label of the option shown at this place, counted from 0."""
    return texts.LETTERS[place] if variant.labels == "letters" else str(place + 1)


def ask(question: str, options: Sequence[str], variant: Variant) -> Ask:
    """Return the question as this variant puts it."""
    order = shown(options, variant)
    if len(options) > len(texts.LETTERS):
        raise ValueError(f"{len(options)} options; at most {len(texts.LETTERS)} can be shown")
    named = [options[i] for i in order]
    if variant.labels != "none":
        named = [f"{label(place, variant)}. {text}" for place, text in enumerate(named)]
    content = PARAPHRASES[variant.paraphrase].format(question=question, options=", ".join(named))
    if variant.labels != "none" and variant.reply == "label":
        content += " Give only its label."
    if variant.persona:
        content = f"{PERSONA.format(variant.persona)}\n{content}"
    closed = [label(place, variant) for place in range(len(order))] if variant.reply == "label" else [
        options[i] for i in order
    ]  # fmt: skip
    return Ask(role="model", messages=(Message(role="user", content=content),), options=tuple(closed))


def read(reply: str, options: Sequence[str], variant: Variant) -> int | None:
    """Return the option's own place; None where the reply chooses none.

    A reply is the label or the option's text, alone; else the one label or option it names. Longer options are looked
    for first, since "agree" is in "strongly agree". A reply that negates outside the options' own words, as refusals
    do, chooses none.
    """
    order = shown(options, variant)
    low = texts.normalise(reply)
    words = [texts.normalise(options[i]) for i in order]
    if low in words:
        return order[words.index(low)]
    if variant.labels != "none":
        labels = [label(place, variant).lower() for place in range(len(order))]
        if low in labels:
            return order[labels.index(low)]
        both = [f"{name} {word}" for name, word in zip(labels, words)]
        if low in both:
            return order[both.index(low)]
    named, rest = texts.named(low, words)
    # only what is left can negate: "not" may be part of an option
    turned = bool(stance.NEGATIONS & set(rest.split()))
    place = named[0] if len(named) == 1 and len(low.split()) <= stance.SHORT and not turned else None
    if place is None and variant.labels == "letters" and (not turned or _LETTERED.match(reply)):
        # a negation may follow the label ("B. I do not ..."), but not go before it
        said = reply.split(maxsplit=1)[0] if turned else reply
        found = texts.first_choice(said, [options[i] for i in order]) if len(reply) <= 200 else None
        place = None if found is None else texts.LETTERS.index(found)
    if place is None and variant.labels == "numbers" and not turned:
        numbers = [int(word) for word in low.split() if word.isdecimal() and len(word) < 3]
        place = numbers[0] - 1 if len(set(numbers)) == 1 and 1 <= numbers[0] <= len(order) else None
    return None if place is None else order[place]


def refused(reply: str) -> bool:
    """Whether a reply that chose nothing says that it will not or cannot; else it is invalid, as "9" or "banana"."""
    return stance.evasion(reply)["refusal"]
