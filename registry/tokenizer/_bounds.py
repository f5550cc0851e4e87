"""Size limits of a `tokenizer.json`, large enough for a large vocabulary, against unbounded growth of a text.

Replacement steps multiply the length of a text. Forty steps that double it turn one character into a terabyte.
"""

from typing import Any

MAX_ENTRIES = 2**21
"""Tokens and merges together."""
MAX_STEPS = 256
"""Number of normalizers, pre-tokenizers or decoders, counted inside sequences too."""
MAX_GROWTH = 64
"""Largest factor by which normalizing or decoding may lengthen a text."""


def check(page: dict[str, Any]) -> None:
    """Raise ValueError if a tokenizer file would take too much memory or time."""
    model = page.get("model")
    held = [model.get(key) for key in ("vocab", "merges")] if isinstance(model, dict) else []
    entries = sum(len(group) for group in (*held, page.get("added_tokens")) if isinstance(group, (dict, list)))
    if entries > MAX_ENTRIES:
        raise ValueError(f"has too many tokens and merges: at most {MAX_ENTRIES:,}, got {entries:,}")
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        steps = _steps(page.get(key))
        if len(steps) > MAX_STEPS:
            raise ValueError(f"its {key} has too many steps: at most {MAX_STEPS}, got {len(steps)}")
        growth = 1.0
        for step in steps:
            growth *= _growth(step)
            if growth > MAX_GROWTH:
                raise ValueError(f"its {key} makes a text more than {MAX_GROWTH} times as long")


def _steps(value: Any) -> list[dict[str, Any]]:
    """Every nested mapping with a `type`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict) and "type" in value else []
    return found + [step for v in inner for step in _steps(v)]


def _growth(step: dict[str, Any]) -> float:
    """Largest factor by which a step lengthens a text, in bytes. A prepended string counts relative to the text."""
    if step["type"] == "ByteLevel":
        return 2.0
    if step["type"] in ("Prepend", "Metaspace"):
        return 1.0 + max(_length(step.get("prepend")), _length(step.get("replacement"))) / 16
    if step["type"] != "Replace":
        return 1.0
    pattern = step.get("pattern")
    fixed = pattern.get("String") if isinstance(pattern, dict) else None
    if not isinstance(fixed, str) or not fixed:  # which may match between any two characters
        return 1.0 + _length(step.get("content"))
    return max(1.0, _length(step.get("content")) / _length(fixed))


def _length(text: Any) -> int:
    return len(text.encode()) if isinstance(text, str) else 0
