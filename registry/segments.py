"""The start of each segment in a row, and the mask of chunked attention.

B batch, T query tokens, S key tokens.
"""

import torch
from torch import Tensor


def begun(segments: Tensor, last: Tensor | None, start: Tensor | None, index: Tensor) -> Tensor:
    """Start index (B, T) of each token's segment. `last`, `start` (B, 1): segment of the last token, and its start."""
    previous = torch.cat([segments[:, :1] if last is None else last, segments[:, :-1]], dim=1)
    origin = torch.where(segments != previous, index, torch.zeros_like(index))
    if start is not None:
        origin = torch.cat([start, origin], dim=1).cummax(dim=1).values
        return origin[:, 1:]
    return origin.cummax(dim=1).values


def same_chunk(chunk: int, queries: Tensor, keys: Tensor, segments: Tensor | None) -> Tensor:
    """Whether a query and a key lie in the same chunk of `chunk` positions: (T, S), or (B, 1, T, S) with segments.

    `queries` (T,) and `keys` (S,) are indices. `keys` holds all keys since the start. `segments` (B, S) belong to the
    keys.
    """
    if segments is not None:
        keys = (keys - begun(segments, None, None, keys))[:, None]  # (B, 1, S)
    blocks = keys // chunk
    return blocks[..., queries][..., :, None] == blocks[..., None, :]
