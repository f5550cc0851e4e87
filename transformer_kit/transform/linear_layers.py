"""Finds the linear layers of a model, of any class, and replaces them.

Code that needs a model's linear layers (adapters, quantization, packing, conversion) calls `linear_layers`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from registry.grouped import GroupedLinear


class SameLinear(nn.Linear):
    """A linear layer with the parameters, names and results of `nn.Linear`, and another kernel."""

    def __init__(self, linear: nn.Linear) -> None:
        """Shares the parameters of `linear`."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training


class QuantizedLinear(nn.Module):
    """x W^T + b with a weight that is not stored in floating point."""

    in_features: int
    out_features: int

    def __init__(self, layer: nn.Linear) -> None:
        """Quantize the weight of `layer`."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear | QuantizedLinear]]:
    """Name and module of each linear layer, each once."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, QuantizedLinear)):
            yield name, module


def swapped(model: nn.Module, make: Callable[[str, nn.Linear], nn.Module | None], *kinds: type[nn.Linear]) -> nn.Module:
    """`model` with `make(name, layer)` in place of each linear layer; None keeps the layer.

    Layers of other classes stay, and so do layers with hooks, which the new module would not call. `kinds` are classes
    to replace in addition to `nn.Linear`.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    for name, layer in list(linear_layers(model)):
        if isinstance(layer, nn.Linear) and type(layer) in (nn.Linear, *kinds) and not hooked(layer):
            made[layer] = make(name, layer)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if (new := made.get(child)) is not None:
                parent.add_module(name, new)
    return model


def swapped_groups(model: nn.Module, make: Callable[[GroupedLinear], nn.Module]) -> nn.Module:
    """`model` with `make(layer)` in place of each grouped linear layer without hooks."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, GroupedLinear) and not hooked(child):
                parent.add_module(name, make(child))
    return model


def hooked(module: nn.Module) -> bool:
    """Whether `module` has hooks, its own or global ones.

    Torch keeps them in private attributes alone, the same since 2.0 (tried on 2.13).
    """
    return _has_any_global_hook() or any(
        (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    )


def refuse_gradients(x: Tensor, what: str) -> None:
    """Raise RuntimeError where a gradient of x is required of a product without one."""
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(f"{what} is for inference and has no gradients; use the model before it was prepared")
