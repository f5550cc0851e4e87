"""Plain text files in UTF-8."""

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from registry.core import register
from registry.dataset._shared import FileDataset, Paths, check_text, digest, readable

BLOCK = 1 << 20


@register
class Text(FileDataset):
    """Each file is a document, or several documents that a separator divides. Line ends stay unchanged."""

    class Options(FileDataset.Options):
        """Files, and the separator of documents."""

        paths: Paths
        """Files or globs, relative to the spec."""
        separator: Annotated[str, MinLen(1)] | None = None
        """Separator of documents in a file, such as "\\n\\n", which also matches Windows line ends. A separator that no
        file contains is an error. Default: each file is one document.
        """

    def documents(self) -> Iterator[str]:
        parts: list[str] = []
        for text, ends in self.pieces():
            parts.append(text)
            if ends:
                document, parts = "".join(parts), []
                if document:
                    yield document

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Yield documents in pieces of at most one block, so that a file may exceed memory."""
        divided = False
        for file in self._files:
            ended = 0
            for text, ends in self._pieces_of(file):
                ended += ends
                yield text, ends
            divided = divided or ended > 1
        if not divided and self.options.separator is not None:
            raise ValueError(self._undivided())

    def faults(self, whole: bool = False) -> Iterator[str]:
        """Yield the first error of each file, or a separator that no file contains."""
        self._divided, self._complete = False, True
        found = list(super().faults(whole))
        if not found and self._complete and not self._divided and self.options.separator is not None:
            found = [self._undivided()]
        yield from found

    @property
    def fingerprint(self) -> str:
        return digest(self._files, "text", self.options.separator)

    def _wrong(self, file: Path, looked: int | None) -> Iterator[str]:
        ended = seen = 0
        try:
            for text, ends in self._pieces_of(file, looked):
                ended, seen = ended + ends, seen + len(text)
                if looked is not None and seen >= looked:
                    self._complete = False
                    break
        except ValueError as error:
            yield str(error)
        self._divided = self._divided or ended > 1

    def _pieces_of(self, file: Path, block: int | None = None) -> Iterator[tuple[str, bool]]:
        separator, blocks = self.options.separator, _read(file, min(BLOCK, block or BLOCK))
        return _whole(blocks) if separator is None else _split(blocks, separator)

    def _undivided(self) -> str:
        separator, others = self.options.separator, len(self._files) - 1
        where = f"{self._files[0]}{f' and {others} more' if others else ''}"
        hint = (
            ' (in YAML, "\\n" in double quotes is a line end, in single quotes it is not)' if "\\" in separator else ""
        )
        what = f"the separator {separator!r} does not occur, so each file would be one document"
        return f"{where}: {what}; remove `separator` if you want that{hint}"


def _read(path: Path, size: int) -> Iterator[str]:
    """The file's text, in blocks of `size` bytes. ValueError gives the offset of a NUL or a byte that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with readable(path), path.open("rb") as file:
        while True:
            block = file.read(size)
            check_text(path, block, offset)
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
    """The text between separators, with Unix or Windows line ends; the engine drops empty documents."""
    pattern = re.compile(r"\r?\n".join(map(re.escape, separator.split("\n"))))
    longest = len(separator) + separator.count("\n")
    rest = ""
    for block in blocks:
        *ended, rest = pattern.split(rest + block)
        for document in ended:
            yield document, True
        sure = max(0, len(rest) - longest + 1)  # what follows may be the beginning of a separator
        if sure:
            yield rest[:sure], False
            rest = rest[sure:]
    yield rest, True
