"""Sequences longer than max_seq_len: refused where positions end there, noted where they go on."""

import warnings

import torch

from registry.state import DecodeState
from transformer_kit.spec.schema import ModelSpec


def ends(model: ModelSpec) -> bool:
    """Whether positions end at max_seq_len: those that are added to the embedding. Others go on."""
    schemes = [model.position, *(getattr(block, "position", None) for block in model.layers.blocks)]
    return any(scheme is not None and scheme.part.acts == "embedding" for scheme in schemes)


def check_length(model: ModelSpec, length: int, state: DecodeState | None) -> None:
    """More tokens than max_seq_len: ValueError where positions end there, else a note. Generation says it itself."""
    limit = model.max_seq_len
    if ends(model):
        raise ValueError(
            f"a sequence has at most max_seq_len ({limit}) tokens, where position '{model.position.part.name}' ends, "
            f"got {length}; rotary positions, ALiBi and none go on"
        )
    if state is None and not torch.compiler.is_compiling():
        warnings.warn(f"{length} tokens are more than max_seq_len ({limit}), which the model is made for", stacklevel=5)
