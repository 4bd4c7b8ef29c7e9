"""`python -m alignlab.cli.docs [--check]`: README.md's table, docs/methods, docs/{checks,intervals,matched_kl}.md.

They come from the cards, from what the tests have shown (`cli.checks`), and from what was measured (`cli.coverage`,
`cli.matched`).

`--check` writes nothing and exits with 1 when a file is stale.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType

from alignlab.cli import about, checks, coverage, flags, matched
from alignlab.core.files import write_text

BEGIN, END = "<!-- methods: begin (make docs) -->", "<!-- methods: end -->"


def cell(text: object) -> str:
    """Return text that cannot break a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())


def table() -> str:
    """Return the method table."""
    lines = ["| method | what it does | paper | status | command |", "|---|---|---|---|---|"]
    for family, name, module in about.cards():
        card = module.CARD
        page = f"[{family}/{name}](docs/methods/{family}-{name}.md)"
        paper = f"[{cell(card.paper)}]({about.paper_link(card.paper)})"
        command = f"`alignlab {about.verb_of(family)} {name}`"
        lines.append(f"| {page} | {cell(card.summary)} | {paper} | {card.status} | {command} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """Return README text with a fresh table; ValueError when the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md: expected the lines {BEGIN} and {END} around the method table")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def page(family: str, name: str, module: ModuleType) -> str:
    """Return one method's page."""
    card = module.CARD
    command = f"alignlab {about.verb_of(family)} {name}"
    lines = [f"# {card.title}", "", f"`{family}/{name}` ({card.status}). {card.summary}", ""]
    lines += ["```text", (module.__doc__ or "").strip(), "```", ""]
    lines += [f"- Paper: <{about.paper_link(card.paper)}>", f"- Command: `{command}`", f"- Needs: {named(card.needs)}"]
    lines += [f"- Default here: `--{name} {value:g}`" for name, value in card.training.items()]
    lines += [f"- Claim: `{claim}`" for claim in card.claims]
    lines += [f"- Proof, up to a minute: `{card.smoke}`"] + ([f"- Study: `{card.study}`"] if card.study else [])
    lines += [f"- Deviation: {text}" for text in card.deviations]
    config = getattr(module, "Config", None)
    if config is not None and fields(config):
        lines += ["", "| flag | accepts | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `--{flag.name}` | {cell(flags.wanted(flag.kind))} | `{cell(flag.default)}` | {cell(flag.doc)} |"
            for flag in flags.flags_of([flags.Group("", config)]).values()
        ]
    lines += ["", "```bibtex", card.bibtex.strip(), "```", ""]
    return "\n".join(lines)


def named(needs: frozenset[str]) -> str:
    """Return inputs as words."""
    return ", ".join(f"`{need}`" for need in sorted(needs)) or "nothing special"


def pages(root: Path) -> dict[Path, str]:
    """Return every generated file with the text it should have."""
    path = root / "README.md"
    wanted = {path: readme(path.read_text(encoding="utf-8"))}
    for family, name, module in about.cards():
        wanted[root / "docs" / "methods" / f"{family}-{name}.md"] = page(family, name, module)
    for made in (checks, coverage, matched):
        if (root / made.RECORD).exists():
            wanted[root / made.PAGE] = made.page(root)
    return wanted


def main(argv: Sequence[str]) -> int:
    """Write the files, or with --check say which are stale."""
    root, wanted = Path.cwd(), pages(Path.cwd())
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    orphans = [path for path in (root / "docs" / "methods").glob("*.md") if path not in wanted]
    if "--check" in argv:
        for path in stale + orphans:
            print(f"{path.relative_to(root)} is stale: run `make docs`", file=sys.stderr)
        return 1 if stale or orphans else 0
    for path in stale:
        write_text(path, wanted[path])
    for path in orphans:
        path.unlink()
    print(f"{len(stale)} written, {len(orphans)} removed, {len(wanted)} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
