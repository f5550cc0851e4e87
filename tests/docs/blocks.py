"""The fenced blocks of the documentation, and how each is tried.

A block runs as it stands. An HTML comment on the line before it, which a reader of the spec does not see, says more:

    <!-- part of: quickstart -->   YAML that is a piece of a spec: laid on this shipped spec and checked there
    <!-- files of: page -->       the files of that page are there; a spec's other blocks may use them
    <!-- file: mine.yaml -->       the text of a file, which later blocks of the spec use; Python in it is not run
    <!-- declaration: file -->     YAML that declares a family: read as that, written into this file
    <!-- excerpt of: file -->      text that stands like this in a file which an earlier block made
    <!-- wrong: text -->           YAML that is refused with this text
    <!-- shorter: --set a=b -->    added to each `kit train` of the block, which else would take minutes
    <!-- short already -->         the block's `kit train` takes seconds as it stands
    <!-- not run: reason -->       not tried; `test_blocks` holds the list of all reasons

A spec is one session: its blocks run in order, in one folder, and its Python blocks share their names. That folder is
empty at first, or, where the spec says `<!-- session: checkout -->`, a copy of this project.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIED = ("sh", "bash", "python", "yaml", "console")
TOLD = ("text", "toml")
"""Languages of blocks that are only read, unless an order says more."""
CHECKOUT = "<!-- session: checkout -->"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_ORDERS = "part of|files of|file|declaration|excerpt of|wrong|shorter|short already|not run"
_COMMENT = re.compile(rf"<!-- ({_ORDERS})(?:: ([^\n]*))? -->\n\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str
    orders: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page of documentation."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of one spec, in order."""
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        orders, before = {}, text[: found.start()]
        while comment := _COMMENT.search(before):
            orders[comment[1]] = comment[2] or ""
            before = before[: comment.start()]
        body = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(page, before.count("\n") + 1, found["language"], body, orders)
