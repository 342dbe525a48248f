"""The pages of the manual, taken apart: code blocks, headings, links, and every command of ours that they mention."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", *DOCS]

_FENCE = re.compile(r"^```(.*)$")
_HEADING = re.compile(r"^#+ (.*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_PROGRAMS = ("outbox", "bin/outbox")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block. The first word behind the fence is its language, the others say who can follow it:
    `postgres`, `sqlite`; `elsewhere`, not in a test.
    """

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced code blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    opened, start = None, 0
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence and opened is None:
            opened, start = fence[1].split(), number
        elif fence and opened is not None:
            language, *words = opened or [""]
            yield Block(page, start, language, tuple(words), "\n".join(lines[start : number - 1]) + "\n")
            opened = None
    assert opened is None, f"{page.name}:{start}: a block that does not end"


def prose(page: Path) -> str:
    """A page without its code blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(page: Path) -> set[str]:
    """What a link can point at in a page: its headings, as GitHub names them."""
    headings = [found[1] for line in prose(page).splitlines() if (found := _HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(prose(page))


def spans(page: Path) -> list[str]:
    """What stands in backticks in a page's prose."""
    return [" ".join(each.split()) for each in _SPAN.findall(prose(page))]


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, each as its words, a pipe ending one."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in lexer:
            if set(word) <= set("|<>"):
                yield command
                command = []
            else:
                command.append(word)
        if command:
            yield command


def our_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `outbox …` that a page names, in a shell block or in backticks, as (place, its words without the first)."""
    for block in blocks(page):
        if block.language == "sh":
            yield from (
                (block.place, command[1:]) for command in commands(block) if command[:1] and command[0] in _PROGRAMS
            )
    for span in spans(page):
        first, _, rest = span.partition(" ")
        if first in _PROGRAMS and rest:
            yield f"{page.name}: {span}", shlex.split(rest)
