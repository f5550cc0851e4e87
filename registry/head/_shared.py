"""What heads share: their last product, and that a tied one fits its table."""

import torch.nn.functional as F
from torch import Tensor, nn

from registry.contracts import Site


def check_tied(width: int, site: Site) -> None:
    """ValueError unless features of this width can be read off the embedding's table."""
    if site.table is not None and width != site.table:
        raise ValueError(
            f"a tied head reads the embedding's rows, which have width {site.table}, with features of width {width}; "
            f"give width: {site.table} to the head, or leave `tied` out"
        )


def project(x: Tensor, out: nn.Linear | None, table: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b (..., V), with the weight of `out` as W, or the embedding's table where there is none."""
    if out is None:
        return F.linear(x, table, bias)
    return out(x) if bias is None else out(x) + bias
