"""A value as YAML in several lines, with a comment at each default."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformer_kit.cli.example import inline

DEFAULT = "# default"

Line = tuple[str, bool]
"""Text of a line, and whether it is a default."""


def nested(key: str, value: Any, defaults: Sequence[str] = ()) -> list[str]:
    """`key: value` in as many lines as needed; `defaults` are dotted paths below `value`.

    A part that is a default as a whole is named without its options.
    """
    lines = list(_lines(key, value, "", frozenset(defaults), False))
    if not key:  # the content, without its key
        lines = [(text.removeprefix("  "), default) for text, default in lines[1:]]
    width = max(len(text) for text, _ in lines)
    return [f"{text.ljust(width)}  {DEFAULT}" if default else text for text, default in lines]


def _lines(key: str, value: Any, path: str, defaults: frozenset[str], default: bool) -> Iterator[Line]:
    default = default or path in defaults
    if isinstance(value, Mapping) and "type" in value and (default or len(value) == 1):
        value = value["type"]
    if isinstance(value, Mapping) and value:
        yield f"{key}:", False
        for name, inner in value.items():
            below = f"{path}.{name}" if path else str(name)
            yield from ((f"  {text}", d) for text, d in _lines(str(name), inner, below, defaults, default))
    else:
        yield f"{key}: {inline(value)}", default
