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


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a block of shell, comments left out and continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        line = re.sub(r"\[(-[^\]]*)\]", r"\1", line)  # what may be left out is taken in
        words = shlex.split(line, comments=True)
        if words:
            found.append(words)
    return found
