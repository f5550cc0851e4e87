"""Folders that are written all or nothing."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformer_kit.convert.errors import ConvertError


def check_free(target: Path) -> None:
    """Raise ConvertError when something is in the place of the folder to make."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConvertError(str(target), ["exists and is not empty; choose another folder"])


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A folder beside `target`, which gets its name at the end. After an error nothing is left of it, nor of the
    folders that were made for it. Raises ConvertError when it cannot be made.
    """
    new = [parent for parent in target.parents if not parent.exists()]
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        try:
            draft.mkdir(parents=True)
        except OSError as error:
            raise ConvertError(str(target), [f"cannot be made: {error.strerror}"]) from error
        yield draft
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in new:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
