"""Small files that others wrote: regular, of bounded size and nesting, Unicode, inside their folder.

    text(path)             what a text file says
    value(path)            what a JSON file says
    mapping(path)          likewise, where it must be a mapping
    parsed(text)           what a text says as JSON
    check_links(folder)    no file of a model's folder is a link that leads out of it
    lone_surrogate(text)   half a character in a text

Errors: FileError, a ValueError, says what is wrong with one file.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from registry.files import POINTER, absent, pointer

MAX_BYTES = 4 * 2**20
"""Bytes that a file may have where a caller names no other limit."""
MAX_DEPTH = 60
"""How deep JSON values may be nested."""
READ = (".json", ".jinja", ".safetensors", ".yaml")
"""Endings of the files in a model's folder that are read or copied."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class FileError(ValueError):
    """A file cannot be read, or is not what it must be."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


def text(path: Path, limit: int = MAX_BYTES) -> str:
    """What a text file says, which must be UTF-8 and have at most `limit` bytes. Raises FileError."""
    try:
        return _content(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"not UTF-8 text: byte {error.start}: {error.reason}") from None
    except OSError as error:
        gone = isinstance(error, FileNotFoundError) and os.path.islink(path)
        reason = absent(path) if gone else f"cannot be read: {error.strerror}"
        raise FileError(path, reason) from error
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(path, f"cannot be read: {error}") from None  # a NUL in its name


def value(path: Path, limit: int = MAX_BYTES) -> Any:
    """What a JSON file says. Raises FileError."""
    content = text(path, limit)
    try:
        return parsed(content)
    except ValueError as error:
        raise FileError(path, f"cannot be read: {error}") from None


def mapping(path: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """What a JSON file says, which must be a mapping. Raises FileError."""
    found = value(path, limit)
    if not isinstance(found, dict):
        raise FileError(path, f"must be a mapping, got {type(found).__name__}")
    return found


def parsed(content: str) -> Any:
    """What a text says as JSON. Raises ValueError."""
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"nested too deeply: at most {MAX_DEPTH} levels") from None
    _check_depth(found)
    _check_characters(content, found)
    return found


def lone_surrogate(content: str) -> str | None:
    """The first half of a character, which no encoding can write, as `U+D800`; None when there is none."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        return f"U+{ord(content[error.start]):04X}"
    return None


def check_links(folder: Path) -> None:
    """Raise FileError when a file of a model's folder is a link to a place outside, or to nothing.

    Links inside the folder are followed, and those of the Hugging Face cache: from `snapshots/NAME` to the `blobs`
    beside `snapshots`.
    """
    home = folder.resolve()
    allowed = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix not in READ or not path.is_symlink():
            continue
        try:
            target = path.resolve()
        except (OSError, RuntimeError):
            raise FileError(path, "is a link that leads in a circle") from None
        if not target.exists():
            raise FileError(path, absent(path))
        if not any(target.is_relative_to(place) for place in allowed):
            raise FileError(path, f"is a link that leads out of its folder, to {target}; put the file itself there")


def _content(path: Path, limit: int) -> bytearray:
    """The bytes of a regular file: to open a pipe would wait, and a device may never end."""
    _check_regular(path, os.stat(path).st_mode)
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        _check_regular(path, os.fstat(file.fileno()).st_mode)  # another one may have taken its place
        content = bytearray()
        while len(content) <= limit and (piece := file.read(2**20)):
            content += piece
    if (what := pointer(bytes(content[: POINTER + 1]))) is not None:
        raise FileError(path, what)
    if len(content) > limit:
        raise FileError(path, f"is too large: at most {limit:,} bytes")
    return content


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileError(path, f"cannot be read: {'is a folder' if stat.S_ISDIR(mode) else 'must be a regular file'}")


def _check_depth(found: Any) -> None:
    level, depth = [found], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested too deeply: at most {MAX_DEPTH} levels")
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list)))
        level, depth = [v for values in inner for v in values if isinstance(v, (dict, list))], depth + 1


def _check_characters(content: str, found: Any) -> None:
    """A lone surrogate comes in as an escape alone, which elsewhere is half of a pair."""
    if _SURROGATE.search(content) and (point := lone_surrogate(json.dumps(found, ensure_ascii=False))):
        raise ValueError(f"holds a lone surrogate, half a character: {point}")
