"""Checks of the arguments of tokenizers."""

from collections.abc import Sequence
from typing import Any


def ids_of(tokens: Any) -> list[int]:
    """Token ids as a list, from a list, a tensor or an array. Raises ValueError for anything else."""
    listed = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    if not isinstance(listed, Sequence) or not all(isinstance(t, int) for t in listed):
        raise ValueError(f"tokens must be a list of token ids, got {tokens!r:.80}")
    if listed and min(listed) < 0:
        raise ValueError(f"token ids must not be negative, got {min(listed)}")
    return list(listed)


def check_text(text: object) -> None:
    """Raise ValueError unless `text` is a string."""
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {type(text).__name__} {text!r:.60}")


def check_unicode(text: str) -> None:
    """Raise ValueError for a lone surrogate: half a character, which no encoding can write."""
    check_text(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ValueError(f"text must be Unicode, got a lone surrogate, {found}") from None
