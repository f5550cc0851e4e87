"""What datasets of files share: finding them, naming what is wrong with one, and a hash of their state."""

import glob
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BeforeValidator


def _as_paths(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_paths, json_schema_input_type=str | list[str]), MinLen(1)]
"""A path or a list of them, each of which may be a glob (`corpus/**/*.txt`)."""


def find(paths: tuple[str, ...], base: Path) -> list[Path]:
    """The files that `paths` name, in the order of `paths`, those of one glob sorted, none twice.

    Empty files are left out where a glob found them. ValueError for a path that is missing, empty or a folder, and
    for a glob that finds nothing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found |= dict.fromkeys(_matches(path, base))
    return list(found)


def digest(files: list[Path], *decisive: object) -> str:
    """Hash of the files' paths, sizes and times of change, and of whatever else decides the documents."""
    with readable():
        states = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([states, decisive]).encode()).hexdigest()


@contextmanager
def readable(path: Path | None = None) -> Iterator[None]:
    """Turn a file that cannot be read into a ValueError that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


def check_binary(path: Path, block: bytes, offset: int) -> None:
    """ValueError when `block`, which begins at byte `offset` of the file, holds a NUL byte."""
    place = block.find(0)
    if place >= 0:
        raise ValueError(f"{path}: must be text, got a binary file (byte {offset + place} is NUL)")


def _matches(path: str, base: Path) -> list[Path]:
    named = base / Path(path).expanduser()
    with readable():
        if named.is_dir():
            raise ValueError(f"{named}: is a folder; name its files, as in '{path.rstrip('/')}/*.txt'")
        if named.exists() and named.stat().st_size == 0:
            raise ValueError(f"{named}: is empty")
        if named.exists():
            return [named]
        if not glob.has_magic(path):
            raise ValueError(f"{named}: no such file")
        found = [Path(p) for p in sorted(glob.glob(str(named), recursive=True))]
        files = [p for p in found if p.is_file() and p.stat().st_size > 0]
    if not files:
        raise ValueError(f"{named}: no file matches, or all that do are empty")
    return files
