"""Initial weights of a model. Each depends on the seed and its own name, not on order, device or sharding.

The spec's `init` part initializes linear and embedding layers; `reset_parameters` of a part initializes its other
tensors. Random numbers are drawn on the CPU in float32 for every device and type, so that a seed carries over.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from registry.contracts import Embedding, Head, Init, ModelPart, Position, Role, Router, Site, Weight
from registry.grouped import GroupedLinear
from transformer_kit import seeds
from transformer_kit.spec.schema import Spec

Layer = nn.Linear | GroupedLinear | nn.Embedding
LAYERS = (nn.Linear, GroupedLinear, nn.Embedding)
"""Tensors of the `init` part."""


def init_weights(model: nn.Module, spec: Spec, seed: int) -> None:
    """Initialize every parameter and buffer of `spec`'s model. ValueError for any that is on meta or stays empty."""
    bare = next((name for name, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta), None)
    if bare is not None:
        raise ValueError(f"{bare} is on the meta device, without memory; call model.to_empty(device=...) first")
    init = spec.model.init.part(spec.model.init, site_of(spec))
    with torch.no_grad(), torch.device("cpu"):
        for module, where in layers(model):
            _fill_layer(module, where, init, seed)
        for name, module in reversed(list(model.named_modules())):  # a part comes after its child parts
            _fill_own(module, name, seed)
        for name, head in model.named_modules():
            if isinstance(head, Head):
                _fill_head_bias(head, name, model, init, seed)


def fill_unsaved(model: nn.Module, device: str | torch.device) -> None:
    """Allocate and compute non-persistent buffers, which no file holds."""
    with torch.no_grad(), torch.device("cpu"):
        for name, module in model.named_modules():
            if module._non_persistent_buffers_set:
                nn.Module.to_empty(module, device=device, recurse=False)
                _fill_own(module, name, 0)


def layers(model: nn.Module) -> Iterator[tuple[Layer, Weight]]:
    """The linear and embedding layers of a model, and the facts about each weight that an initializer gets."""
    roles = _roles(model)
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            at = name.split(".")
            layer = int(at[1]) if at[0] == "layers" else None
            fan_in = 1 if isinstance(module, nn.Embedding) else module.in_features
            yield module, Weight(f"{name}.weight", roles.get(module, "hidden"), layer, fan_in)


def site_of(spec: Spec) -> Site:
    """The facts that every part of a model gets about it."""
    model = spec.model
    return Site(
        d_model=model.d_model,
        vocab_size=model.vocab_size,
        max_seq_len=model.max_seq_len,
        n_layers=len(model.layers.blocks),
        dropout=model.dropout,
        defaults={"norm": model.norm, "position": model.position},
    )


def _roles(model: nn.Module) -> dict[nn.Module, Role]:
    """Roles of layers: as the module that holds them declares, else as the family of the nearest part does."""
    found: dict[nn.Module, Role] = {}
    for part in model.modules():
        if isinstance(part, ModelPart):
            found |= {module: _usual(part, module) for module in part.modules() if isinstance(module, LAYERS)}
    for holder in model.modules():
        for name, role in getattr(holder, "roles", {}).items():
            layer = _child(holder, name)
            if layer is not None:
                found[layer] = role
    return found


def _usual(part: ModelPart, layer: nn.Module) -> Role:
    if isinstance(layer, nn.Embedding):
        return "position" if isinstance(part, Position) else "embedding"
    return "router" if isinstance(part, Router) else "hidden"


def _child(module: nn.Module | None, path: str) -> nn.Module | None:
    """The submodule at `path`; None where options left it out."""
    for step in path.split("."):
        module = getattr(module, step, None)
    return module


def _fill_layer(module: Layer, where: Weight, init: Init, seed: int) -> None:
    """A grouped layer is initialized group by group, each like a separate layer."""
    name = where.name.removesuffix(".weight")
    weight = torch.empty(module.weight.shape)
    generator = seeds.generator(seed, name)
    for one in weight if isinstance(module, GroupedLinear) else [weight]:
        init.fill(one, where, generator)
    module.weight.copy_(weight)
    if not isinstance(module, nn.Embedding) and module.bias is not None:
        bias, where = torch.empty(module.bias.shape), replace(where, name=f"{name}.bias")
        generator = seeds.generator(seed, where.name)
        for one in bias if isinstance(module, GroupedLinear) else [bias]:
            init.fill_bias(one, where, generator)
        module.bias.copy_(bias)


def _fill_head_bias(head: Head, name: str, model: nn.Module, init: Init, seed: int) -> None:
    """The head's own bias, which initializers get too although a tied head has no linear layer."""
    bias = head._parameters.get("bias")
    if bias is None:
        return
    out = getattr(head, "out", None)
    tables = [embedding.weight for embedding in model.modules() if isinstance(embedding, Embedding)]
    width = out.in_features if isinstance(out, nn.Linear) else tables[0].shape[1]
    where = Weight(f"{name}.bias", "head", None, width)
    drawn = torch.empty(bias.shape)
    init.fill_bias(drawn, where, seeds.generator(seed, where.name))
    bias.copy_(drawn)


def _fill_own(module: nn.Module, name: str, seed: int) -> None:
    """Let a module initialize its own tensors: a part with its generator, a torch module with the global ones."""
    if isinstance(module, ModelPart):
        if type(module).reset_parameters is ModelPart.reset_parameters and not any(_owned(module, name)):
            return  # the common case, and models have many parts
        _drawn(module, name, lambda: module.reset_parameters(seeds.generator(seed, name)))
    elif not isinstance(module, LAYERS) and _fills_itself(module):
        reset: Any = module.reset_parameters
        with seeds.scope(seed, name):
            _drawn(module, name, reset)


def _drawn(module: nn.Module, name: str, fill: Callable[[], object]) -> None:
    """Call `fill` with empty CPU tensors in place of those of `module`, then copy the values."""
    owned = list(_owned(module, name))
    for table, key, _, tensor in owned:
        table[key] = _blank(tensor)
    try:
        fill()
    finally:
        drawn = [table[key] for table, key, _, _ in owned]
        for table, key, _, tensor in owned:
            table[key] = tensor
    for (_, _, called, tensor), new in zip(owned, drawn, strict=True):
        if _is_blank(new):
            raise ValueError(f"nothing fills {called}; fill it in reset_parameters of {type(module).__name__}")
        tensor.copy_(new)


def _owned(module: nn.Module, name: str) -> Iterator[tuple[dict[str, Any], str, str, Tensor]]:
    """Tensors of a module and of its plain torch modules: the owner of each, and its name."""
    for table in (module._parameters, module._buffers):
        for key, tensor in table.items():
            if tensor is not None:
                yield table, key, f"{name}.{key}", tensor
    for key, child in module.named_children():
        if not (isinstance(child, (*LAYERS, ModelPart)) or _fills_itself(child)):
            yield from _owned(child, f"{name}.{key}")


def _fills_itself(module: nn.Module) -> bool:
    """Whether a module is one of torch's, with tensors and a `reset_parameters`."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return hasattr(module, "reset_parameters") and any(t is not None for t in own)


def _blank(tensor: Tensor) -> Tensor:
    """An uninitialized tensor of the same kind, in float32 for floating point."""
    if tensor.is_floating_point():
        blank = torch.full(tensor.shape, float("nan"))
    elif tensor.is_complex() or tensor.dtype == torch.bool:
        blank = torch.zeros(tensor.shape, dtype=tensor.dtype)
    else:
        blank = torch.full(tensor.shape, torch.iinfo(tensor.dtype).min, dtype=tensor.dtype)
    return nn.Parameter(blank, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else blank


def _is_blank(tensor: Tensor) -> bool:
    """Whether uninitialized values remain."""
    if tensor.is_floating_point():
        return bool(tensor.isnan().any())
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    return tensor.numel() > 0 and bool((tensor == torch.iinfo(tensor.dtype).min).all())
