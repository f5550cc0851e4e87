"""Plain text files in UTF-8."""

import codecs
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from registry.contracts import Dataset
from registry.core import register
from registry.dataset._shared import Paths, check_binary, digest, find, readable

BLOCK = 1 << 20


@register
class Text(Dataset):
    """A file is a document, or several when a separator divides it. Line ends stay as they are."""

    class Options(Dataset.Options):
        """Where the text is, and what divides it."""

        paths: Paths
        """Files or globs, relative to the spec."""
        separator: Annotated[str, MinLen(1)] | None = None
        """What stands between two documents in a file, such as "\\n\\n"; not given, a file is one document."""

    def documents(self) -> Iterator[str]:
        parts: list[str] = []
        for text, ends in self.pieces():
            parts.append(text)
            if ends:
                document, parts = "".join(parts), []
                if document:
                    yield document

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The documents in pieces of at most a block, so that a file may be larger than memory."""
        separator = self.options.separator
        for file in self._files:
            yield from _whole(_read(file)) if separator is None else _split(_read(file), separator)

    @property
    def fingerprint(self) -> str:
        return digest(self._files, "text", self.options.separator)

    @cached_property
    def _files(self) -> list[Path]:
        return find(self.options.paths, self.base)


def _read(path: Path) -> Iterator[str]:
    """The file's text, block by block; ValueError with the offset of a byte that is not UTF-8, or NUL."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with readable(path), path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            check_binary(path, block, offset)
            offset += len(block)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = offset - len(error.object) + error.start
                raise ValueError(f"{path}: must be UTF-8, got byte {place}: {error.reason}") from None
            yield text.removeprefix("\ufeff") if offset == len(block) else text
            if not block:
                return


def _whole(blocks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    for block in blocks:
        yield block, False
    yield "", True


def _split(blocks: Iterable[str], separator: str) -> Iterator[tuple[str, bool]]:
    """The text between separators; empty documents are left to the engine, which drops them."""
    rest = ""
    for block in blocks:
        *ended, rest = (rest + block).split(separator)
        for document in ended:
            yield document, True
        sure = max(0, len(rest) - len(separator) + 1)  # what follows may be the beginning of a separator
        if sure:
            yield rest[:sure], False
            rest = rest[sure:]
    yield rest, True
