"""The dtype of each imported weight: its own, unless weights that share a product have several."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from transformer_kit.convert.errors import CONFIG
from transformer_kit.convert.tensors import Move
from transformer_kit.convert.weights import Weights
from transformer_kit.model.types import together, widest, words

NAMED = {words([t]): t for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
KEYS = ("dtype", "torch_dtype")
"""Config keys for the dtype of the weights, newest first."""


def types_of(
    weights: Weights, found: list[Move], model: nn.Module, config: Mapping[str, Any]
) -> dict[str, torch.dtype]:
    """The dtype of each kit tensor: its own, if the weights that share a product have one dtype. Otherwise it is the
    config's dtype, else the widest of them, and `weights` gets a note.
    """
    bound = set(together(model))
    there = [move for move in found if weights.usable(move.theirs)]
    own = {name: widest(weights.dtype(n) for n in move.theirs) for move in there for name in move.ours}
    stored = {weights.dtype(n) for move in there if bound & set(move.ours) for n in move.theirs}
    if len(stored) < 2:
        return own
    named = next((NAMED[word] for key in KEYS if (word := _word(config.get(key))) in NAMED), None)
    wanted = widest(stored) if named is None else named
    why = "the widest of these" if named is None else f"as {CONFIG} says"
    weights.notes.append(f"weights of {words(stored)} are read as {words([wanted])}, {why}")
    return {name: wanted if name in bound else kind for name, kind in own.items()}


def _word(value: object) -> str:
    return value.removeprefix("torch.") if isinstance(value, str) else ""
