"""What a model may be given: refused at the door, in words, what would die inside or be silently wrong.

Letters: B batch, T query tokens.
"""

import warnings

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.model.loss import IGNORE
from transformer_kit.spec.schema import ModelSpec

KINDS = (torch.int64, torch.int32)


def check_tokens(model: ModelSpec, tokens: Tensor, segments: Tensor | None, state: DecodeState | None) -> None:
    """Raise ValueError for tokens, segments or a state that cannot go through the model together."""
    if not isinstance(tokens, Tensor):
        raise ValueError(f"tokens must be a tensor of ids (B, T), got {type(tokens).__name__} {tokens!r:.60}")
    if tokens.dim() != 2 or not tokens.numel():
        raise ValueError(f"tokens must be (B, T), with one at least, got {_shape(tokens)}")
    if tokens.dtype not in KINDS:
        raise ValueError(f"tokens must be ids, int64 or int32, got {_kind(tokens)}")
    if segments is not None and not isinstance(segments, Tensor):
        raise ValueError(f"segments must be a tensor (B, T), got {type(segments).__name__} {segments!r:.60}")
    if state is not None and not isinstance(state, DecodeState):
        raise ValueError(f"state must be what `model.state(batch)` makes, got {type(state).__name__} {state!r:.60}")
    if segments is not None and segments.shape != tokens.shape:
        raise ValueError(f"segments must be of the shape of tokens, {_shape(tokens)}, got {_shape(segments)}")
    length = tokens.shape[1] + (0 if state is None else state.length)
    if length > model.max_seq_len:
        _check_length(model, length, state)
    if not _costly(tokens):
        _check_ids("token ids", tokens, model.vocab_size)


def ends(model: ModelSpec) -> bool:
    """Whether positions end at max_seq_len: those that are added to the embedding. Others go on."""
    schemes = [model.position, *(getattr(block, "position", None) for block in model.layers.blocks)]
    return any(scheme is not None and scheme.part.acts == "embedding" for scheme in schemes)


def _check_length(model: ModelSpec, length: int, state: DecodeState | None) -> None:
    """More tokens than max_seq_len: ValueError where positions end there, else a note. Generation says it itself."""
    limit = model.max_seq_len
    if ends(model):
        raise ValueError(
            f"a sequence has at most max_seq_len ({limit}) tokens, where position '{model.position.part.name}' ends, "
            f"got {length}; rotary positions, ALiBi and none go on"
        )
    if state is None and not torch.compiler.is_compiling():
        warnings.warn(f"{length} tokens are more than max_seq_len ({limit}), which the model is made for", stacklevel=5)


def check_targets(model: ModelSpec, tokens: Tensor, targets: Tensor) -> None:
    """Raise ValueError for targets that say nothing about `tokens`."""
    if targets.shape != tokens.shape:
        raise ValueError(f"targets must be of the shape of tokens, {_shape(tokens)}, got {_shape(targets)}")
    if targets.dtype != torch.int64:  # what cross-entropy takes
        raise ValueError(f"targets must be ids, int64, got {_kind(targets)}")
    if not _costly(targets):
        _check_ids(f"targets that are not {IGNORE}", targets[targets != IGNORE], model.vocab_size)


def check_size(what: str, size: int) -> None:
    """Raise ValueError for what is no number of rows or tokens."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{what} must be a whole number, at least 1, got {size!r:.60}")


def _costly(ids: Tensor) -> bool:
    """Whether looking at values would stall a device, or break a graph."""
    return ids.device.type != "cpu" or torch.compiler.is_compiling()


def _check_ids(what: str, ids: Tensor, size: int) -> None:
    if not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise ValueError(f"{what} must be from 0 to {size - 1} (vocab_size - 1), got {low if low < 0 else high}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
