"""Globs that leave nothing out in silence: `*`, `?`, `[...]` and `**`, as Python's `glob` has them.

What cannot be read is an error. A folder that is reached twice, by a link or in a circle, is looked into once.
"""

import glob
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath


def matching(pattern: PurePath, base: Path) -> list[Path]:
    """Files, and links to what is not there, that fit `pattern` from the folder `base`, sorted by their paths.

    A beginning of `pattern` that exists as it is written is a name and no pattern, as is `base`. OSError for a folder
    that cannot be read.
    """
    folder, parts = base / pattern.anchor, list(pattern.relative_to(pattern.anchor).parts)
    while len(parts) > 1 and (folder / parts[0]).exists():
        folder /= parts.pop(0)
    found = sorted((p for p in _walk(folder, parts, set()) if p.is_file() or not p.exists()), key=str)
    return list({(os.path.realpath(p.parent), p.name): p for p in reversed(found)}.values())[::-1]


Seen = set[tuple[str, ...]]
"""Folders that `**` looked into, each with what followed it."""


def _walk(folder: Path, parts: list[str], seen: Seen) -> Iterator[Path]:
    """What fits `parts`, one for each level of folders, in `folder`."""
    part, *rest = parts
    if part == "**":
        yield from [] if rest else [folder]
        yield from _deep(folder, rest or ["*"], seen)
    elif not glob.has_magic(part):
        path = folder / part
        if os.path.lexists(path):
            yield from _walk(path, rest, seen) if rest else [path]
    else:
        for path in _entries(folder):
            if fnmatch(path.name, part) and path.name.startswith(".") <= part.startswith("."):
                yield from [path] if not rest else _walk(path, rest, seen) if path.is_dir() else []


def _deep(folder: Path, rest: list[str], seen: Seen) -> Iterator[Path]:
    """What fits `rest` in `folder` and in all below it that are not hidden."""
    here = (os.path.realpath(folder), *rest)
    if here in seen:
        return
    seen.add(here)
    yield from _walk(folder, rest, seen)
    for path in _entries(folder):
        if path.is_dir() and not path.name.startswith("."):
            yield from _deep(path, rest, seen)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
