"""`ls`, `show`, `cite`: what there is, printed from the cards."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from types import ModuleType
from typing import Any

from alignlab.cli import flags, recipes, verbs
from alignlab.core.cards import Card
from alignlab.core.find import FAMILIES, find, names


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Flags of `ls`."""

    json: bool = False
    """print JSON for programs"""
    family: str | None = None
    """only this family"""


def cards(family: str | None = None) -> Iterator[tuple[str, str, ModuleType]]:
    """Yield (family, name, module) of every method, or of one family; TypeError for a method without a card."""
    for kind in (family,) if family else FAMILIES:
        for name in names(kind):
            module = find(kind, name)
            if not isinstance(getattr(module, "CARD", None), Card):
                raise TypeError(f"{module.__name__} has no CARD of type alignlab.core.cards.Card")
            yield kind, name, module


def locate(name: str) -> tuple[str, str, ModuleType]:
    """Return (family, name, module) for `name` or `family/name`; LookupError when there is none, or more than one."""
    family, _, short = name.replace("-", "_").rpartition("/")
    homes = [kind for kind in ((family,) if family else FAMILIES) if short in names(kind)]
    if len(homes) > 1:
        raise LookupError(f"{name!r} is in several families; say which: {', '.join(f'{h}/{short}' for h in homes)}")
    if not homes:
        import difflib

        every = sorted({n for kind in FAMILIES for n in names(kind)})
        near = difflib.get_close_matches(short, every, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"no method {name!r}{hint} All methods: alignlab ls")
    return homes[0], short, find(homes[0], short)


def verb_of(family: str) -> str:
    """Return the verb that runs a family."""
    return next(name for name, verb in verbs.VERBS.items() if family in verb.families)


def ls(argv: Sequence[str]) -> int:
    """List the methods."""
    groups = [flags.Group("Listing", Listing)]
    if asked_for_help("ls", groups, argv):
        return 0
    values = flags.parse("alignlab ls", groups, argv)
    found = [(family, name, module.CARD) for family, name, module in cards(values["family"])]
    if values["json"]:
        records = [{"id": f"{family}/{name}", "command": f"alignlab {verb_of(family)} {name}"} | as_record(card)
                   for family, name, card in found]  # fmt: skip
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return 0
    width = max((len(name) for _, name, _ in found), default=0) + 2
    last = None
    for family, name, card in found:
        if family != last:
            print(f"{'' if last is None else chr(10)}{family}  (alignlab {verb_of(family)} ...)")
        last = family
        print(f"  {name:<{width}}{card.summary}" + ("" if card.status == "faithful" else f" [{card.status}]"))
    return 0


def as_record(card: Card) -> dict[str, Any]:
    """Return a card as plain JSON values."""
    return asdict(card) | {"needs": sorted(card.needs), "claims": [str(claim) for claim in card.claims]}


def show(argv: Sequence[str]) -> int:
    """Print a method's docstring, card and flags."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: alignlab show METHOD [--json]\n\nPrint a method's description, card and flags.")
        return 0 if argv else 2
    family, name, module = locate(argv[0])
    card = module.CARD
    if flags.parse("alignlab show", [flags.Group("Listing", Listing)], argv[1:])["json"]:
        print(json.dumps({"id": f"{family}/{name}"} | as_record(card), indent=2, ensure_ascii=False))
        return 0
    print(f"{family}/{name}: {card.title}\n\n{(module.__doc__ or '').strip()}\n")
    lines = {
        "paper": paper_link(card.paper),
        "status": card.status,
        "needs": ", ".join(sorted(card.needs)) or "nothing",
    }
    lines |= {"claim": "; ".join(map(str, card.claims)), "smoke": card.smoke, "study": card.study}
    lines |= {"deviates": "; ".join(card.deviations)}
    lines |= {"recipes": ", ".join(f"{recipes.PREFIX}{one}" for one in recipes.of(f"{verb_of(family)} {name}"))}
    for key, value in lines.items():
        if value:
            print(f"{key + ':':<10}{value}")
    config = getattr(module, "Config", None)
    if config is not None and fields(config):
        print()
        print(flags.show_help(f"alignlab {verb_of(family)} {name}", [flags.Group("Method", config)], ""))
    return 0


def paper_link(paper: str) -> str:
    """Return the URL of an arXiv id or DOI; a URL stays as it is."""
    paper = paper.removeprefix("arXiv:").removeprefix("doi:")
    if paper.startswith(("http://", "https://")):
        return paper
    return f"https://doi.org/{paper}" if paper.startswith("10.") else f"https://arxiv.org/abs/{paper}"


def cite(argv: Sequence[str]) -> int:
    """Print the BibTeX entries of methods, each once."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: alignlab cite METHOD [METHOD ...]\n\nPrint the BibTeX of what a piece of work used.")
        return 0 if argv else 2
    entries = dict.fromkeys(locate(name)[2].CARD.bibtex.strip() for name in argv)
    print("\n\n".join(entries))
    return 0


def asked_for_help(verb: str, groups: Sequence[flags.Group], argv: Sequence[str]) -> bool:
    """Print the help page of a verb without methods if it was asked for."""
    if not any(word in ("-h", "--help") for word in argv):
        return False
    sys.stdout.write(flags.show_help(f"alignlab {verb}", groups, verbs.VERBS[verb].summary.capitalize() + "."))
    return True
