"""Folders that are written completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformer_kit.convert.errors import ConvertError
from transformer_kit.model.drafts import draft_of


def check_free(target: Path) -> None:
    """Raise ConvertError if the target folder exists and is not empty."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConvertError(str(target), ["exists and is not empty; choose another folder"])


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` at the end. After an error nothing remains, created parent folders
    included. Raises ConvertError if it cannot be made.
    """
    began = False
    try:
        with draft_of(target) as draft:
            began = True
            yield draft
            os.replace(draft, target)
    except OSError as error:
        if began:
            raise
        raise ConvertError(str(target), [f"cannot be made: {error.strerror}"]) from error
