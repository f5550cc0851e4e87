"""Checkpoints are complete or absent: after a kill, a crash or a full disk the last good one remains.

A checkpoint is written into a hidden folder next to its final path. Each file is synced to disk and listed with size
and SHA-256 in `manifest.json`; then the folder is renamed. Only checkpoints that match their manifest are loaded.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry import untrusted

MANIFEST = "manifest.json"
NAME = re.compile(r"step-(\d{8,})")
DRAFT = ".draft-"


def path_of(parent: Path, step: int) -> Path:
    """Path of the checkpoint of `step`."""
    return parent / f"step-{step:08d}"


def found(parent: Path) -> list[tuple[int, Path]]:
    """Step and folder of each checkpoint by name, newest first, not yet verified."""
    if not parent.is_dir():
        return []
    named = ((NAME.fullmatch(p.name), p) for p in parent.iterdir())
    return sorted(((int(match[1]), path) for match, path in named if match), reverse=True)


@contextmanager
def committed(path: Path) -> Iterator[Path]:
    """An empty folder to fill. On exit it is synced to disk and renamed to `path`; after an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    draft = path.with_name(f"{DRAFT}{path.name}")
    draft.mkdir()
    try:
        yield draft
        _seal(draft)
        if os.path.lexists(path):
            path.rename(path.with_name(f"{DRAFT}old-{path.name}"))
        draft.rename(path)
        _sync(path.parent)
    finally:
        sweep(path.parent)


def fault(folder: Path) -> str | None:
    """Why the folder does not match its manifest; None when each file is there, byte for byte."""
    try:
        files = untrusted.mapping(folder / MANIFEST)["files"]
        if not files:
            return f"{MANIFEST} lists no file"
        for name, listed in files.items():
            if Path(name).name != name:
                return f"{MANIFEST} names a file outside the folder"
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != listed["size"]:
                return f"{name} has {path.stat().st_size} bytes, not {listed['size']}"
            if _sha256(path) != listed["sha256"]:
                return f"{name} does not have the content that was written"
    except untrusted.FileError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return f"{MANIFEST} is missing" if missing else f"{MANIFEST} is damaged: {error.reason}"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def prune(parent: Path, keep: int, step: int) -> None:
    """Remove all but the newest `keep` checkpoints up to `step`.

    Later ones were found damaged when the run resumed. They do not count, and later steps replace them.
    """
    for _, path in [pair for pair in found(parent) if pair[0] <= step][keep:]:
        # Rename first, so that a kill while removing leaves no partial checkpoint under its name.
        doomed = path.with_name(f"{DRAFT}old-{path.name}")
        path.rename(doomed)
        _remove(doomed)


def sweep(parent: Path) -> None:
    """Remove unfinished folders that a crash left."""
    for path in parent.glob(f"{DRAFT}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder and its contents; remove links and files themselves, without following links."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Sync each file to disk and list it in the manifest."""
    files = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        files[path.name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), "utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders, and commits renames by itself.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
