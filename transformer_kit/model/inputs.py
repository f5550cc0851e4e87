"""Checks the arguments of `Model.forward`, which would otherwise fail inside or give a wrong result."""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.model.lengths import check_length
from transformer_kit.model.loss import IGNORE
from transformer_kit.model.packing import check_segments
from transformer_kit.spec.schema import ModelSpec


def check(
    model: ModelSpec, tokens: Tensor, targets: Tensor | None, segments: Tensor | None, state: DecodeState | None
) -> None:
    """Raise ValueError for tokens (B, T), targets, segments or a state that cannot go through the model together."""
    _check_kinds(tokens, segments, state)
    if tokens.dim() != 2 or not tokens.numel():
        raise ValueError(f"tokens must be (B, T), with one at least, got {tuple(tokens.shape)}")
    for name, given in (("segments", segments), ("targets", targets)):
        if given is not None and given.shape != tokens.shape:
            raise ValueError(f"{name} must be of the shape of tokens, {(*tokens.shape,)}, got {(*given.shape,)}")
    if segments is not None:
        check_segments(segments, state)
    length = tokens.shape[1] + (0 if state is None else state.length)
    if length > model.max_seq_len:
        check_length(model, length, state)
    _check_ids("token ids", tokens, model.vocab_size)
    if targets is not None:
        if targets.dtype != torch.int64:  # what cross-entropy takes
            raise ValueError(f"targets must be ids, int64, got {str(targets.dtype).removeprefix('torch.')}")
        _check_ids(f"targets that are not {IGNORE}", targets, model.vocab_size, IGNORE)


def _check_kinds(tokens: Tensor, segments: Tensor | None, state: DecodeState | None) -> None:
    if not isinstance(tokens, Tensor):
        raise ValueError(f"tokens must be a tensor of ids (B, T), got {type(tokens).__name__} {tokens!r:.60}")
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"tokens must be ids, int64 or int32, got {str(tokens.dtype).removeprefix('torch.')}")
    if segments is not None and not isinstance(segments, Tensor):
        raise ValueError(f"segments must be a tensor (B, T), got {type(segments).__name__} {segments!r:.60}")
    if state is not None and not isinstance(state, DecodeState):
        raise ValueError(f"state must be what `model.state(batch)` makes, got {type(state).__name__} {state!r:.60}")


def _check_ids(what: str, ids: Tensor, size: int, ignored: int | None = None) -> None:
    """On a CPU alone: elsewhere this check would synchronize with the device, and break a compiled or traced graph."""
    if ids.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    counted = ids if ignored is None else ids[ids != ignored]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
    if low < 0 or high >= size:
        raise ValueError(f"{what} must be from 0 to {size - 1} (vocab_size - 1), got {low if low < 0 else high}")
