"""Checks of the values that a declaration computes with.

A value comes from a config or a declaration, which are both untrusted. `checked(kind, value, where)` returns the value,
or raises ConvertError with the required kind.
"""

import math
from collections.abc import Callable
from typing import Any

from transformer_kit.convert.errors import ConvertError
from transformer_kit.spec.errors import shown
from transformer_kit.spec.layers import MAX_LAYERS

LARGEST = 1e18


def checked(kind: str, value: Any, where: str) -> Any:
    """Return `value` if it is of the kind. Raises ConvertError."""
    must, _ = KINDS[kind]
    if not is_a(kind, value):
        raise ConvertError("config.json", [f"{where}: must be {must}, got {shown(value)}"])
    return value


def is_a(kind: str, value: Any) -> bool:
    """Whether a value is of the kind."""
    return KINDS[kind][1](value)


def _number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= LARGEST


def _whole(value: Any) -> bool:
    return _number(value) and isinstance(value, int)


def _flag(value: Any) -> bool:
    return value is None or value in (0, 1)


def _short(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether the value is a list of at most MAX_LAYERS items that all satisfy `holds`."""
    return isinstance(value, list) and len(value) <= MAX_LAYERS and all(map(holds, value))


def _run(value: Any) -> bool:
    """Whether the value is a list of words with a repeat count."""
    if not isinstance(value, list) or len(value) != 2 or not _whole(value[1]):
        return False
    words, times = value
    return 0 <= times <= MAX_LAYERS and _short(words, lambda word: isinstance(word, str)) and len(words) > 0


def _runs(value: Any) -> bool:
    return _short(value, _run) and sum(len(words) * times for words, times in value) <= MAX_LAYERS


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "number": ("a finite number", _number),
    "power": ("a number from -8 to 8", lambda value: _number(value) and abs(value) <= 8),
    "whole number": ("a whole number", _whole),
    "count": ("a whole number of at least 1", lambda value: _whole(value) and value > 0),
    "flag": ("true or false", _flag),
    "indices": ("a list of layers", lambda value: _short(value, _whole)),
    "flags": ("a list of 0 and 1, one for each layer", lambda value: _short(value, lambda v: v in (0, 1))),
    "runs": (f"a list of [[WORD, ...], TIMES], of at most {MAX_LAYERS} layers in all", _runs),
}
