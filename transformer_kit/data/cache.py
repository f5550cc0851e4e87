"""The cache folder, and atomic writes into it: a temporary folder is written first and then renamed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.files import located

VARIABLE = "TRANSFORMER_KIT_CACHE"
"""Environment variable that moves the cache."""
ABANDONED = 24 * 3600.0
"""Seconds without a change after which an unfinished folder counts as abandoned by a killed process."""


def cache_folder(chosen: Path | None = None) -> Path:
    """The cache folder: `chosen`, else $TRANSFORMER_KIT_CACHE, else transformer_kit in $XDG_CACHE_HOME or ~/.cache.

    Raises OSError if none of them exists and the user has no home folder.
    """
    named = os.environ.get(VARIABLE) if chosen is None else str(chosen)
    if named:
        return located(named, Path())
    around = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(around):  # the XDG standard ignores relative paths
        return Path(around, "transformer_kit")
    try:
        return Path("~/.cache/transformer_kit").expanduser()
    except RuntimeError:
        raise OSError(f"this user has no home folder for the token cache; set {VARIABLE} to a folder") from None


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds, and is removed when it fails.

    If another process has finished the same folder meanwhile, that one stays. Raises OSError if writing fails.
    """
    unfinished = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield unfinished
        for path in (*unfinished.iterdir(), unfinished):
            _sync(path)
        _rename(unfinished, folder)
        _sync(folder.parent)
    except BaseException as error:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        place = f"the cache {folder.parent} cannot be written"
        raise OSError(error.errno, f"{place}: {error.strerror}; set {VARIABLE} to another folder") from error


def _rename(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(unfinished)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove the abandoned folders of killed processes."""
    for path in parent.glob(".*-*"):
        with suppress(OSError):  # another process may be sweeping too
            changes = [p.stat().st_mtime for p in (path, *path.glob("*"))]
            if time.time() - max(changes) > ABANDONED:
                shutil.rmtree(path)
