"""Sequences longer than max_seq_len: an error for absolute positions, else a warning."""

import warnings

import torch

from registry.state import DecodeState
from transformer_kit.spec.schema import ModelSpec


def ends(model: ModelSpec) -> bool:
    """Whether positions end at max_seq_len, as those added to the embedding do."""
    schemes = [model.position, *(getattr(block, "position", None) for block in model.layers.blocks)]
    return any(scheme is not None and scheme.part.acts == "embedding" for scheme in schemes)


def check_length(model: ModelSpec, length: int, state: DecodeState | None) -> None:
    """Check for more than max_seq_len tokens: ValueError where positions end, else a note. Generation has its own."""
    limit = model.max_seq_len
    if ends(model):
        raise ValueError(
            f"a sequence has at most max_seq_len ({limit}) tokens, where position '{model.position.part.name}' ends, "
            f"got {length}; rotary positions, ALiBi and none go on"
        )
    if state is None and not torch.compiler.is_compiling():
        warnings.warn(f"{length} tokens are more than max_seq_len ({limit}), which the model is made for", stacklevel=5)
