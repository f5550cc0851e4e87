"""The first weights of a model. Each depends on the seed and its own name, so order, device and sharding do not matter.

The spec's `init` part fills linear and embedding layers; whatever else a part owns is filled by its `reset_parameters`.
All numbers are drawn on the CPU in float32, whatever device and type the model has, so that a seed carries over.
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
"""What the `init` part fills."""


def init_weights(model: nn.Module, spec: Spec, seed: int) -> None:
    """Fill every parameter and buffer of `spec`'s model. ValueError where one has no memory, or nothing fills it."""
    bare = next((name for name, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta), None)
    if bare is not None:
        raise ValueError(f"{bare} is on the meta device, without memory; call model.to_empty(device=...) first")
    init = spec.model.init.part(spec.model.init, site_of(spec))
    with torch.no_grad(), torch.device("cpu"):
        for module, where in layers(model):
            _fill_layer(module, where, init, seed)
        for name, module in reversed(list(model.named_modules())):  # a part comes after what it holds
            _fill_own(module, name, seed)
        for name, head in model.named_modules():
            if isinstance(head, Head):
                _fill_head_bias(head, name, model, init, seed)


def fill_unsaved(model: nn.Module, device: str | torch.device) -> None:
    """Make and fill what a part computes and no file holds: buffers that are not persistent."""
    with torch.no_grad(), torch.device("cpu"):
        for name, module in model.named_modules():
            if module._non_persistent_buffers_set:
                nn.Module.to_empty(module, device=device, recurse=False)
                _fill_own(module, name, 0)


def layers(model: nn.Module) -> Iterator[tuple[Layer, Weight]]:
    """The linear and embedding layers of a model, and what an initializer is told of the weight of each."""
    roles = _roles(model)
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            at = name.split(".")
            layer = int(at[1]) if at[0] == "layers" else None
            fan_in = 1 if isinstance(module, nn.Embedding) else module.in_features
            yield module, Weight(f"{name}.weight", roles.get(module, "hidden"), layer, fan_in)


def site_of(spec: Spec) -> Site:
    """What every part of a model is told of it."""
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
    """What layers are for: what a module that holds them says, or else what the family of the nearest part tells."""
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
    """A grouped layer is filled one group after another, each like a layer of its own."""
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
    """A head holds its bias itself, since a tied one has no linear layer; initializers reach it all the same."""
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
    """Let a module fill the tensors that it owns: a part by its generator, one of torch's by the global ones."""
    if isinstance(module, ModelPart):
        if type(module).reset_parameters is ModelPart.reset_parameters and not any(_owned(module, name)):
            return  # as most parts, of which there may be many
        _drawn(module, name, lambda: module.reset_parameters(seeds.generator(seed, name)))
    elif not isinstance(module, LAYERS) and _fills_itself(module):
        reset: Any = module.reset_parameters
        with seeds.scope(seed, name):
            _drawn(module, name, reset)


def _drawn(module: nn.Module, name: str, fill: Callable[[], object]) -> None:
    """Call `fill` while blank tensors of the CPU stand for those that `module` owns, which then get their values."""
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
    """A module's own tensors, and those of modules inside that no one else fills: where each stands, and its name."""
    for table in (module._parameters, module._buffers):
        for key, tensor in table.items():
            if tensor is not None:
                yield table, key, f"{name}.{key}", tensor
    for key, child in module.named_children():
        if not (isinstance(child, (*LAYERS, ModelPart)) or _fills_itself(child)):
            yield from _owned(child, f"{name}.{key}")


def _fills_itself(module: nn.Module) -> bool:
    """Whether a module is one of torch's kind, with tensors and a function that fills them."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return hasattr(module, "reset_parameters") and any(t is not None for t in own)


def _blank(tensor: Tensor) -> Tensor:
    """A tensor of the same kind whose values nobody chooses, in float32 where it holds real numbers."""
    if tensor.is_floating_point():
        blank = torch.full(tensor.shape, float("nan"))
    elif tensor.is_complex() or tensor.dtype == torch.bool:
        blank = torch.zeros(tensor.shape, dtype=tensor.dtype)
    else:
        blank = torch.full(tensor.shape, torch.iinfo(tensor.dtype).min, dtype=tensor.dtype)
    return nn.Parameter(blank, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else blank


def _is_blank(tensor: Tensor) -> bool:
    """Whether values were left that nobody chose."""
    if tensor.is_floating_point():
        return bool(tensor.isnan().any())
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    return tensor.numel() > 0 and bool((tensor == torch.iinfo(tensor.dtype).min).all())
