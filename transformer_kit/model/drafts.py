"""Hidden folders that are renamed once complete, and removed when their process was killed."""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A new folder next to `target`, created with its parents. After an error all of them are removed.

    The caller renames it. Drafts of killed processes for the same target are removed. Raises OSError.
    """
    new = [parent for parent in target.parents if not parent.exists()]
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _sweep(target)
        draft.mkdir(parents=True)
        with _held(draft):
            yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in new:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _sweep(target: Path) -> None:
    """Remove drafts that no process holds."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}")
    found = target.parent.iterdir() if target.parent.is_dir() else ()
    for path in [p for p in found if name.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]:
        with _held(path) as free:
            if free:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Inside, this process locks the folder, until it ends at the latest; yields whether locking worked."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # another process holds it, or the file system has no locks
        free = False
    try:
        yield free
    finally:
        os.close(handle)
