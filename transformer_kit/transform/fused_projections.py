"""Fused projections: linear layers of one module with the same input (q, k, v; gate, up) become one product.

    model = fused_projections(model)
    layers.0.mixer.q   FusedProjection: computes the product for all, returns its own part
    layers.0.mixer.k   FusedOutput: returns its part of q's product

No part declares its layers for fusion: the transform runs a prompt and a token and compares inputs. A FusedOutput
raises RuntimeError when its input differs from that of its FusedProjection, or when it is called first.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transformer_kit.transform.calls import Call, passes
from transformer_kit.transform.linear_layers import SameLinear, hooked

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


class FusedOutput(nn.Module):
    """x -> its part of a fused product."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.source: Tensor | None = None
        """Input of the fused product; None when no output is left here."""
        self.result: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        result = self.result
        if result is None or x is not self.source:
            raise RuntimeError(
                f"{self.path} is part of a fused projection, whose first layer must be called before it with the same "
                "tensor; generate with a model that is not prepared"
            )
        self.source = self.result = None
        return result


class FusedProjection(nn.Module):
    """x -> the first part of one product; the other parts are left in their FusedOutputs."""

    def __init__(self, linear: nn.Linear, sizes: list[int], others: list[FusedOutput]) -> None:
        super().__init__()
        self.linear = linear
        """Weights of all layers, one below the other."""
        self.sizes = sizes
        self._others = tuple(others)  # modules of the parent, not of this one

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.linear(x).split(self.sizes, dim=-1)
        for other, result in zip(self._others, rest, strict=True):
            other.source, other.result = x, result
        return first


@torch.no_grad()
def fused_projections(model: "Model") -> "Model":
    """Swap linear layers of one module that take the same tensor."""
    found = passes(model)
    for name, parent in list(model.named_modules()):
        children = {child: key for key, child in parent.named_children() if _fusible(child)}
        for group in _groups(found, children):
            _fuse(name, parent, {children[layer]: layer for layer in group})
    return model


def _fusible(module: nn.Module) -> bool:
    return (type(module) is nn.Linear or isinstance(module, SameLinear)) and not hooked(module)


def _groups(found: list[list[Call]], children: dict[nn.Module, str]) -> Iterator[list[nn.Linear]]:
    """Layers of `children` that every pass calls once, in the same order, with the same unchanged tensor."""
    alike = [_by_input(calls, children) for calls in found]
    for layers in alike[0]:
        kinds = {(layer.weight.dtype, layer.weight.device) for layer in layers}
        once = all(sum(call.layer is layer for call in calls) == 1 for calls in found for layer in layers)
        if len(layers) > 1 and len(kinds) == 1 and once and all(layers in groups for groups in alike):
            yield layers


def _by_input(calls: list[Call], children: dict[nn.Module, str]) -> list[list[nn.Linear]]:
    """Layers with the same input, in call order."""
    groups: dict[int, list[Call]] = {}
    for call in calls:
        if call.layer in children:
            groups.setdefault(id(call.x), []).append(call)
    return [[c.layer for c in group if torch.equal(c.value, group[0].value)] for group in groups.values()]


def _fuse(name: str, parent: nn.Module, layers: dict[str, nn.Linear]) -> None:
    """Replace the first of `layers` by a FusedProjection and the others by FusedOutputs."""
    first, *rest = layers
    others = {key: FusedOutput(f"{name}.{key}") for key in rest}
    sizes = [layer.out_features for layer in layers.values()]
    fused = FusedProjection(_stacked(list(layers.values())), sizes, list(others.values()))
    for key, module in {first: fused, **others}.items():
        parent.add_module(key, module.train(parent.training))


def _stacked(layers: list[nn.Linear]) -> nn.Linear:
    """One linear layer with the concatenated outputs of `layers`; it has a bias where any has one."""
    biased = any(layer.bias is not None for layer in layers)
    with torch.device("meta"):
        made = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=biased)
    made.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    if biased:
        made.bias = nn.Parameter(torch.cat([_bias(layer) for layer in layers]), requires_grad=False)
    return made


def _bias(layer: nn.Linear) -> Tensor:
    """The bias, or zeros without one."""
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
