"""The experts of a mixture: E feed-forward parts of one kind, each applied to its own rows.

    experts = experts_of(make, n_experts)      # make() builds one
    y = experts(x, offsets, context)           # rows of expert e are those from offsets[e - 1] to offsets[e]

Where all weights of an expert lie in linear layers, as in most models, there is one module with stacked weights
(`StackedExperts`), and no Python loop. Experts that hold other weights, such as norms or routers of their own, are E
modules (`SeparateExperts`), called in turn.

Letters: N rows, E experts, D d_model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, ModelPart, Router
from registry.grouped import GroupedLinear, groups


class StackedExperts(nn.Module):
    """E experts as one module: `stacked` is one expert whose linear layers are grouped."""

    def __init__(self, expert: FFN, count: int) -> None:
        super().__init__()
        self.count = count
        for parent in list(expert.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    setattr(parent, name, GroupedLinear(child, count))
        self.stacked = expert

    def forward(self, x: Tensor, offsets: Tensor, context: Context) -> Tensor:
        """x (N, D), sorted by expert -> (N, D)."""
        with groups(offsets):
            y: Tensor = self.stacked(x, context)
        return y

    def idle(self, k: int) -> int:
        """Parameters that a token which is given to k experts leaves unvisited."""
        return sum(p.numel() for p in self.parameters()) // self.count * (self.count - k)


class SeparateExperts(nn.ModuleList):
    """E experts, each a module of its own. The host waits for the offsets, so there is no single graph."""

    def forward(self, x: Tensor, offsets: Tensor, context: Context) -> Tensor:
        """x (N, D), sorted by expert -> (N, D)."""
        if x.is_meta:  # which has no values: as even as can be
            offsets = torch.arange(1, len(self) + 1, device="cpu") * len(x) // len(self)
        pieces = x.tensor_split(offsets[:-1].long().cpu())
        return torch.cat([expert(piece, context) for expert, piece in zip(self, pieces, strict=True)])

    def idle(self, k: int) -> int:
        """Parameters that a token which is given to k experts leaves unvisited."""
        one = self[0]
        assert isinstance(one, FFN)
        return sum(p.numel() for p in one.parameters()) * (len(self) - k) + k * one.idle()


def experts_of(make: Callable[[], FFN], count: int) -> StackedExperts | SeparateExperts:
    """So many experts, each as `make` builds it."""
    one = make()
    if _is_stackable(one):
        return StackedExperts(one, count)
    return SeparateExperts([one, *(make() for _ in range(count - 1))])


def _is_stackable(expert: FFN) -> bool:
    """Whether nothing but linear layers, each in one place, tells an expert from another."""
    places = list(expert.named_modules(remove_duplicate=False))
    linear = {f"{name}.{leaf}" for name, m in places if _is_linear(m) for leaf in ("weight", "bias")}
    steps = any(type(m).after_step is not ModelPart.after_step for _, m in places if isinstance(m, ModelPart))
    tensors = [id(p) for _, p in expert.named_parameters(remove_duplicate=False)]
    shared = len(set(tensors)) < len(tensors)
    routes = any(isinstance(m, Router) for _, m in places)
    return expert.state_dict().keys() <= linear and not (steps or shared or routes)


def _is_linear(module: nn.Module) -> bool:
    """Whether it is torch's own linear layer and nothing derived from it."""
    return type(module) is nn.Linear
