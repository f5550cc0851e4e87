"""JSON lines: one object per line, with the document in one field."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen

from registry.core import register
from registry.dataset._shared import FileDataset, Paths, check_text, digest, readable

LONGEST = 256 * 2**20
ARRAY = "; `jq -c '.[]'` writes an array as lines"
CHATS = ("messages", "conversations", "conversation")

log = logging.getLogger(__name__)


@register
class Jsonl(FileDataset):
    """Each line's `field` is a document. Blank lines are skipped."""

    class Options(FileDataset.Options):
        """Files, and the text field."""

        paths: Paths
        """Files or globs, relative to the spec."""
        field: Annotated[str, MinLen(1)] = "text"
        """Name of the field with the document."""
        on_bad_lines: Literal["error", "skip"] = "error"
        """Whether a line without a document raises an error, or is skipped with a warning."""

    def documents(self) -> Iterator[str]:
        for file in self._files:
            yield from self._read(file)

    @property
    def fingerprint(self) -> str:
        return digest(self._files, "jsonl", self.options.field, self.options.on_bad_lines)

    def _read(self, file: Path) -> Iterator[str]:
        first, skipped = "", 0
        for place, line in _lines(file):
            try:
                document = self._document(line, place)
            except ValueError as error:
                if self.options.on_bad_lines == "error":
                    raise
                first, skipped = first or str(error), skipped + 1
            else:
                yield document
        if skipped:
            log.warning("%s: skipped %d lines; the first error: %s", file, skipped, first)

    def _wrong(self, file: Path, looked: int | None) -> Iterator[str]:
        seen = 0
        try:
            for place, line in _lines(file):
                seen += len(line)
                if self.options.on_bad_lines == "error":
                    try:
                        self._document(line, place)
                    except ValueError as error:
                        yield str(error)
                if looked is not None and seen >= looked:
                    return
        except ValueError as error:
            yield str(error)

    def _document(self, line: bytes, place: str) -> str:
        if len(line) > LONGEST:
            raise ValueError(f"{place}: a line must be at most {LONGEST // 2**20} MiB")
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: must be UTF-8, got byte {error.start} of the line: {error.reason}") from None
        except (ValueError, RecursionError) as error:
            hint = ARRAY if line.strip() == b"[" else ""
            raise ValueError(f"{place}: must be JSON, got {error}{hint}") from None
        if not isinstance(record, dict):
            hint = ARRAY if isinstance(record, list) else ""
            raise ValueError(f"{place}: must be an object, got {type(record).__name__}{hint}")
        if self.options.field not in record:
            has = ", ".join(map(repr, list(record)[:8])) or "none"
            raise ValueError(f"{place}: no field {self.options.field!r}; fields are {has}{_hint(*record)}")
        return self._text(record[self.options.field], place)

    def _text(self, value: object, place: str) -> str:
        field = self.options.field
        if not isinstance(value, str):
            hint = _hint(field if isinstance(value, list) else "")
            raise ValueError(f"{place}: field {field!r} must be a string, got {type(value).__name__}{hint}")
        try:
            value.encode()
        except UnicodeEncodeError:
            found = f"field {field!r} holds a lone surrogate, half a character"
            raise ValueError(f"{place}: {found}") from None
        return value


def _hint(*fields: str) -> str:
    """Advice for rows that hold chats."""
    chat = next((name for name in fields if name in CHATS), None)
    rendered = "`tokenizer.apply_chat_template(..., tokenize=False)` of transformers does it"
    return "" if chat is None else f"; render the chat in {chat!r} to text first: {rendered}"


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Location and content of each line that is not blank; of a line that is too long, only its beginning."""
    offset, number = 0, 0
    with readable(path), path.open("rb") as file:
        check_text(path, file.peek(), 0)
        while line := file.readline(LONGEST + 1):
            number += 1
            check_text(path, line, offset)
            offset += len(line)
            if line.strip():
                yield f"{path}:{number}", line
            while len(line) > LONGEST and not line.endswith(b"\n"):
                line = file.readline(LONGEST + 1)  # the rest of what is too long
                offset += len(line)
