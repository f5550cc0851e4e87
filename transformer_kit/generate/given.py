"""Arguments of `generate` and `stream`: prompts of several kinds, and samplers by keywords."""

from collections.abc import Sequence
from typing import Any, TypedDict

from registry.words import suggest
from transformer_kit.generate.choose import built
from transformer_kit.generate.defaults import KEYS
from transformer_kit.generate.defaults import samplers as samplers_of


class Sampling(TypedDict, total=False):
    """Samplers by name and single option, applied in this order."""

    temperature: float
    """Divisor of the logits; 0 is greedy."""
    top_k: int
    """Keeps the k most likely tokens; 0 keeps all."""
    top_p: float
    """Keeps the most likely tokens with total probability p."""
    min_p: float
    """Removes tokens less likely than p times the most likely one; 0 keeps all."""


OFF = {"top_k": (0, -1), "min_p": (0,)}
"""Values at which a sampler is left out."""


def listed(prompts: Any) -> list[list[int]]:
    """Prompts as lists of ids: from lists, tensors or arrays of whole numbers. ValueError for other values."""
    if isinstance(prompts, (str, bytes)):
        raise ValueError(f"prompts must be token ids, got text {prompts!r:.60}; `generate_text` takes text")
    rows = prompts.tolist() if hasattr(prompts, "tolist") else prompts
    if not isinstance(rows, Sequence) or not rows:
        raise ValueError(f"prompts must be a list with at least one list of token ids, got {prompts!r:.60}")
    if all(_is_id(row) for row in rows):
        raise ValueError(f"prompts must be lists of token ids, got {prompts!r:.60}; put a single prompt in brackets")
    return [_ids(row, f"prompt {i}" if len(rows) > 1 else "the prompt") for i, row in enumerate(rows)]


def _ids(row: Any, name: str) -> list[int]:
    if isinstance(row, (str, bytes)):
        raise ValueError(f"{name} must be token ids, got text {row!r:.60}; `generate_text` takes text")
    ids = row.tolist() if hasattr(row, "tolist") else row
    if not isinstance(ids, Sequence):
        raise ValueError(f"{name} must be a list of token ids, got {row!r:.60}")
    return [id.__index__() if _is_id(id) else id for id in ids]  # `prompts.check` refuses invalid ids


def _is_id(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0


def narrowing(samplers: Sequence[object], sampling: dict[str, Any], known: Sequence[str]) -> Sequence[object]:
    """The listed samplers, or those that keywords name.

    Raises TypeError for a keyword that is neither a sampler's nor in `known`, ValueError for a wrong value.
    """
    for key in sampling:
        if key not in KEYS:
            raise TypeError(f"generation has no setting '{key}'{suggest(key, [*known])}")
    given = {key: sampling[key] for key in KEYS if sampling.get(key) is not None}
    if not given:
        return samplers
    if samplers:
        raise ValueError(f"give `samplers` or {', '.join(given)}, not both")
    if given.get("temperature") == 0:
        return []
    named = [_sampler(key, value) for key, value in given.items() if value not in OFF.get(key, ())]
    return named or [_sampler("temperature", 1.0)]


def _sampler(name: str, value: Any) -> object:
    exact = float(value) if isinstance(value, int) and not isinstance(value, bool) and name != "top_k" else value
    (page,) = samplers_of({name: exact})
    try:
        built([page])
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).rpartition('samplers[0]')[2].lstrip(':. ')}") from None
    return page
