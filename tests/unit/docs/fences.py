"""The code blocks of the documentation: where they stand, what they are marked as."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "k8s/**/*.md", "launch/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
    if not {".venv", ".hypothesis", ".pytest_cache"} & set(path.parts)
)
SOURCES = sorted(ROOT.glob("distckpt/**/*.py"))

_FENCE = re.compile(
    r"^(?:[ ]*<!--\ (?P<mark>[^\n]+?)\ -->\n)?"
    r"(?P<indent>[ ]*)```(?P<language>\S*)\n(?P<code>.*?)^[ ]*```$",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_INLINE = re.compile(r"`([^`]+)`")


@dataclasses.dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
      page: The file, from the root of the repository.
      line: The number of its first line of code, from 1.
      mark: What the comment on the line before says: "runs: training"; "" if there is none.
      language: "python"; "" if none is given.
      code: What it says, without the indentation of the block.
    """

    page: str
    line: int
    mark: str
    language: str
    code: str

    @property
    def kind(self) -> str:
        """The first word of the mark."""
        return self.mark.partition(":")[0].strip()

    @property
    def detail(self) -> str:
        """What the mark says after its colon."""
        return self.mark.partition(":")[2].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: pathlib.Path) -> list[Block]:
    """Returns the code blocks of a page, or of the docstrings of a module, in their order."""
    text, page = path.read_text(), str(path.relative_to(ROOT))
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["mark"] or "",
            found["language"],
            textwrap.dedent(found["code"]),
        )
        for found in _FENCE.finditer(text)
    ]


def inline_code(path: pathlib.Path) -> Iterator[str]:
    """Yields what stands between backquotes in the prose of a page, each on one line."""
    for found in _INLINE.findall(_FENCE.sub("", path.read_text())):
        yield " ".join(found.split())


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
DOCSTRINGS = [block for source in SOURCES for block in blocks_of(source)]
