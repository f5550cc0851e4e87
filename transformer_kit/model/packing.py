"""Checks which document each token of a packed row belongs to.

A document that comes back after another one would attend to its earlier tokens, with positions that start again.
"""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.spec.errors import shown


def check_segments(segments: Tensor, state: DecodeState | None) -> None:
    """Raise ValueError unless `segments` (B, T) are -1 (padding) or documents, each one run of tokens with those held.

    Values are checked on a CPU alone: elsewhere that would synchronize with the device, and break a compiled graph.
    """
    if segments.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"segments must be int64 or int32, got {str(segments.dtype).removeprefix('torch.')}")
    if segments.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if int(segments.min()) < -1:
        raise ValueError(f"segments must be -1 (padding) or more, got {int(segments.min())}")
    if state is not None and state.length and state.batch == len(segments):
        held = segments.new_zeros(state.batch, 1) if state.segments is None else state.segments[:, : state.length]
        segments = torch.cat([held, segments], dim=1)
    for row in segments:
        runs = row.unique_consecutive()
        runs = runs[runs >= 0]
        if len(runs) != len(runs.unique()):
            raise ValueError(
                f"each segment must be one run of tokens, got {shown(row.tolist())}; give each document its own id"
            )
