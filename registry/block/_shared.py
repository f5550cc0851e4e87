"""What blocks share: a norm for each branch, and how a branch joins the residual stream."""

import torch
from torch import Tensor, nn

from registry.contracts import Block, Norm, NormSlot, Position, Site
from registry.options import Group


class Norms(Group):
    """A norm for each branch; the block's formula says where it stands."""

    mixer_norm: NormSlot | None = None
    """Norm of the mixer's branch, when it is not `norm`."""
    ffn_norm: NormSlot | None = None
    """Norm of the ffn's branch, when it is not `norm`."""


class Scale(nn.Module):
    """factor * x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def joining(site: Site, scale: float) -> nn.Module:
    """What a branch passes before it is added: dropout, and `residual_scale` where there is one."""
    dropout = nn.Dropout(site.dropout) if site.dropout else nn.Identity()
    return dropout if scale == 1 else nn.Sequential(dropout, Scale(scale))


def kept(x: Tensor, factor: float, branch: Tensor) -> Tensor:
    """factor x + branch, in one pass over memory."""
    return torch.add(branch, x, alpha=factor)


def own(site: Site, options: Block.Options) -> Site:
    """The site of a block's children: the block's own norm and position in place of the model's."""
    return site.using(options.norm, Norm).using(options.position, Position)
