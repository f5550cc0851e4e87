"""JSON lines: one object per line, one of its fields is the document."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from registry.contracts import Dataset
from registry.core import register
from registry.dataset._shared import Paths, check_binary, digest, find, readable

LONGEST = 256 * 2**20


@register
class Jsonl(Dataset):
    """Documents are the strings in `field`, line after line. Blank lines are skipped."""

    class Options(Dataset.Options):
        """Where the lines are, and what in them is text."""

        paths: Paths
        """Files or globs, relative to the spec."""
        field: Annotated[str, MinLen(1)] = "text"
        """Field that holds the document."""

    def documents(self) -> Iterator[str]:
        for file in self._files:
            yield from self._read(file)

    @property
    def fingerprint(self) -> str:
        return digest(self._files, "jsonl", self.options.field)

    @cached_property
    def _files(self) -> list[Path]:
        return find(self.options.paths, self.base)

    def _read(self, path: Path) -> Iterator[str]:
        offset, number = 0, 0
        with readable(path), path.open("rb") as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                check_binary(path, line, offset)
                offset += len(line)
                if line.strip():
                    yield self._document(line, f"{path}:{number}")

    def _document(self, line: bytes, place: str) -> str:
        if len(line) > LONGEST:
            raise ValueError(f"{place}: a line must be at most {LONGEST // 2**20} MiB")
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: must be UTF-8, got byte {error.start} of the line: {error.reason}") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: must be JSON, got {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: must be an object, got {type(record).__name__}")
        if self.options.field not in record:
            has = ", ".join(map(repr, list(record)[:8])) or "none"
            raise ValueError(f"{place}: no field {self.options.field!r}; fields are {has}")
        return self._text(record[self.options.field], place)

    def _text(self, value: object, place: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{place}: field {self.options.field!r} must be a string, got {type(value).__name__}")
        try:
            value.encode()
        except UnicodeEncodeError:
            found = f"field {self.options.field!r} holds a lone surrogate, half a character"
            raise ValueError(f"{place}: {found}") from None
        return value
