"""Code blocks of README and the documentation, with what is said before them about running them.

A block may be preceded by an HTML comment: `<!-- not run: WHY -->` or `<!-- output -->` (what a command prints).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.running import CHECKOUT

PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
_MARK = re.compile(r"<!--\s*(output|not run: .+?)\s*-->", re.DOTALL)
OF_SPHINX = ("{",)  # directives


class Block(NamedTuple):
    page: str  # relative to the checkout
    line: int
    language: str  # "" where none is said
    text: str
    mark: str  # "", "output", or "not run: WHY"

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    from markdown_it import MarkdownIt

    found, mark = [], ""
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block":
            said = _MARK.search(token.content)
            mark = said[1] if said else ""
        elif token.type in ("fence", "code_block"):
            language = token.info.strip()
            if not language.startswith(OF_SPHINX):
                place = page.relative_to(CHECKOUT).as_posix()
                found.append(Block(place, token.map[0] + 1, language, token.content, " ".join(mark.split())))
            mark = ""
        elif token.type.endswith("_open") or token.type == "inline":
            mark = "" if token.type == "inline" else mark
    return found


def commands_of(block: Block, variables: dict[str, str]) -> list[list[str]]:
    """The words of each command of a block of shell, comments left out and continued lines joined.

    `variables`: those set so far on the page; the block's own are added.
    """
    text = block.text.replace("\\\n", " ")
    for name, value in re.findall(r'^([A-Z]+)="([^"]*)"', text, re.MULTILINE):
        variables[name] = " ".join(value.split())
    text = re.sub(r'^[A-Z]+="[^"]*"\n', "", text, flags=re.MULTILINE)
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${name}", variables[name])
    lines = (re.sub(r"\[(-[^\]]*)\]", r"\1", line) for line in text.splitlines())  # what may be left out is taken in
    return [words for line in lines if (words := shlex.split(line, comments=True))]
