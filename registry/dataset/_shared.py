"""Shared by file datasets: find the files, report bad ones, hash the content."""

import glob
import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BeforeValidator

from registry.contracts import Dataset
from registry.files import absent, located, other_kind, pointer
from registry.patterns import matching

SMALL = 64 * 2**20
"""Largest corpus, in bytes, that `check` reads in full."""
BEGINNING = 1 << 16
"""Minimum bytes checked of each file of a larger corpus."""
HASHED = 256 * 2**20
"""Largest corpus, in bytes, that is hashed in full; a larger one is hashed by samples of this total size."""
SAMPLE = 1 << 14
"""Bytes of a sample; each file has at least two."""


def _as_paths(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_paths, json_schema_input_type=str | list[str]), MinLen(1)]
"""A path or a list of paths, each of which may be a glob (`corpus/**/*.txt`)."""


class FileDataset(Dataset):
    """Documents from the files in the option `paths`."""

    def faults(self, whole: bool = False) -> Iterator[str]:
        """Yield the errors of a small corpus, read in full, or of a larger one, read at the beginning of each file."""
        size = sum(file.stat().st_size for file in self._files)
        looked = None if whole or size <= SMALL else max(BEGINNING, SMALL // len(self._files))
        for file in self._files:
            yield from self._wrong(file, looked)

    @abstractmethod
    def _wrong(self, file: Path, looked: int | None) -> Iterator[str]:
        """Yield what is wrong in the first `looked` bytes of a file, or in all of it."""

    @cached_property
    def _files(self) -> list[Path]:
        return find(self.options.paths, self.base)


def find(paths: tuple[str, ...], base: Path) -> list[Path]:
    """The files that match `paths`, in the order of `paths`. Matches of one glob are sorted; no file appears twice.

    Globs skip empty files. Raises ValueError for a path that is missing, empty or a folder, for a glob without a match,
    and for a broken link.
    """
    found: dict[tuple[Path, str], Path] = {}
    for path in paths:
        for file in _matches(path, base):
            found.setdefault((file.parent.resolve(), file.name), file)
    return list(found.values())


def digest(files: list[Path], *decisive: object) -> str:
    """Hash of the files' content and of the arguments `decisive`.

    A large corpus is hashed by samples, sizes, and modification and status-change times. Nobody can reset the latter.
    """
    with readable():
        states = [file.stat() for file in files]
        whole = sum(state.st_size for state in states) <= HASHED
        samples = None if whole else max(2, HASHED // SAMPLE // len(files))
        content = [(s.st_size, _hash(f, s.st_size, samples)) for f, s in zip(files, states, strict=True)]
        times = None if whole else [(s.st_mtime_ns, s.st_ctime_ns) for s in states]
    return hashlib.sha256(json.dumps([content, times, decisive]).encode()).hexdigest()


@contextmanager
def readable(path: Path | None = None) -> Iterator[None]:
    """Turn an unreadable file into a ValueError that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


def check_text(path: Path, block: bytes, offset: int) -> None:
    """Raise ValueError if `block`, at byte `offset` of the file, shows that the file is not plain text."""
    known = None if offset else pointer(block) or other_kind(block)
    if known is not None:
        raise ValueError(f"{path}: {known}")
    place = block.find(0)
    if place >= 0:
        raise ValueError(f"{path}: must be text, got a binary file (byte {offset + place} is NUL)")


def _matches(path: str, base: Path) -> list[Path]:
    named = located(path, base)
    with readable():
        if named.is_dir():
            raise ValueError(f"{named}: is a folder; name its files, as in '{path.rstrip('/')}/*.txt'")
        if named.exists() and not named.is_file():
            raise ValueError(f"{named}: must be a regular file")
        if named.exists() and named.stat().st_size == 0:
            raise ValueError(f"{named}: is empty")
        if named.exists():
            return [named]
        if named.is_symlink() or not glob.has_magic(path):
            raise ValueError(f"{named}: {absent(named)}")
        found = _globbed(path, base)
        for file in found:
            if not file.exists():
                raise ValueError(f"{file}: {absent(file)}")
        files = [p for p in found if p.stat().st_size > 0]
    if not files:
        raise ValueError(f"{named}: no file matches, or all that do are empty")
    return files


def _globbed(path: str, base: Path) -> list[Path]:
    """Files that match the glob `path`. A leading `~` is the home folder, not a pattern."""
    home, slash, rest = path.partition("/")
    above = located(home, base)
    return matching(PurePath(rest), above) if slash and home.startswith("~") else matching(PurePath(path), base)


def _hash(path: Path, size: int, samples: int | None) -> str:
    """Hash of a file's content, or of `samples` evenly spread samples of a large file, both ends included."""
    with path.open("rb") as file:
        if samples is None or size <= samples * SAMPLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = hashlib.sha256()
        for i in range(samples):
            file.seek(i * (size - SAMPLE) // (samples - 1))
            content.update(file.read(SAMPLE))
        return content.hexdigest()
