"""Shared by blocks: a norm for each branch, and the residual connection."""

import torch
from torch import Tensor, nn

from registry.contracts import Block, Norm, NormSlot, Position, Site
from registry.options import Group


class Norms(Group):
    """A norm for each branch; the block's formula shows its place."""

    mixer_norm: NormSlot | None = None
    """Norm of the mixer's branch; `norm` when not given."""
    ffn_norm: NormSlot | None = None
    """Norm of the ffn's branch; `norm` when not given."""


class Scale(nn.Module):
    """factor * x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def joining(site: Site, scale: float) -> nn.Module:
    """Dropout and `residual_scale` of a branch's output."""
    dropout = nn.Dropout(site.dropout) if site.dropout else nn.Identity()
    return dropout if scale == 1 else nn.Sequential(dropout, Scale(scale))


def kept(x: Tensor, factor: float, branch: Tensor) -> Tensor:
    """factor x + branch, in one kernel."""
    return torch.add(branch, x, alpha=factor)


def own(site: Site, options: Block.Options) -> Site:
    """The site of a block's children, with the block's norm and positional encoding as defaults."""
    return site.using(options.norm, Norm).using(options.position, Position)
