"""Checks of arguments from Python code for building, loading and saving models."""

import os
from pathlib import Path
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def device_of(device: Any) -> torch.device:
    """The device of this name. ValueError for unknown or missing devices."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"device must be one that is there, such as 'cpu', got {device!r:.60}: {reason}") from None
    return found


def dtype_of(dtype: Any) -> torch.dtype:
    """The dtype from torch or by name. ValueError for other types."""
    found = next((kind for name, kind in DTYPES.items() if dtype in (name, kind)), None)
    if found is None:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, as torch has them or by name, got {dtype!r:.60}")
    return found


def seed_of(seed: Any) -> int:
    """A seed. ValueError unless it is a whole number from 0."""
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a whole number, at least 0, got {seed!r:.60}")
    return seed


def path_of(folder: Any, what: str = "folder") -> Path:
    """A path. ValueError for what is none, for a name that no file can have, and for links in a circle."""
    if not isinstance(folder, (str, os.PathLike)) or isinstance(os.fspath(folder), bytes):
        raise ValueError(f"{what} must be a path, got {type(folder).__name__}")
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # a name that no file can have, or links in a circle
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{what} must be a path, got {os.fspath(folder)!r:.60}: {reason}") from None
    return Path(folder)


def check_size(what: str, size: int) -> None:
    """Raise ValueError for what is no number of rows or tokens."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{what} must be a whole number, at least 1, got {size!r:.60}")
