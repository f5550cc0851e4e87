"""Where the segments of a row begin, and which tokens share a block of positions.

B batch, T query tokens, S key tokens.
"""

import torch
from torch import Tensor


def begun(segments: Tensor, last: Tensor | None, start: Tensor | None, index: Tensor) -> Tensor:
    """Index (B, T) at which each token's segment began. `last`, `start` (B, 1): segment and beginning of the past."""
    previous = torch.cat([segments[:, :1] if last is None else last, segments[:, :-1]], dim=1)
    origin = torch.where(segments != previous, index, torch.zeros_like(index))
    if start is not None:
        origin = torch.cat([start, origin], dim=1).cummax(dim=1).values
        return origin[:, 1:]
    return origin.cummax(dim=1).values


def same_chunk(chunk: int, queries: Tensor, keys: Tensor, segments: Tensor | None) -> Tensor:
    """Whether a query and a key stand in the same block of `chunk` positions: (T, S), or (B, 1, T, S) with segments.

    `queries` (T,) and `keys` (S,) are indices, of all keys since the start; `segments` (B, S) are those of the keys.
    """
    if segments is not None:
        keys = (keys - begun(segments, None, None, keys))[:, None]  # (B, 1, S)
    blocks = keys // chunk
    return blocks[..., queries][..., :, None] == blocks[..., None, :]
