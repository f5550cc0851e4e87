"""Shared by optimizers: which parameters decay, and whether a fused step applies."""

from torch import nn

from registry.contracts import ModelPart, Norm
from registry.grouped import GroupedLinear

FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Devices for which torch has fused optimizer steps."""


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups of what learns: those that decay, and the others without decay."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("no parameter learns: all are frozen")
    kept = {id(p) for module in model.modules() for p in _kept(module)}
    pairs = (
        ([p for p in learning if id(p) not in kept], weight_decay),
        ([p for p in learning if id(p) in kept], 0.0),
    )
    return [{"params": params, "weight_decay": decay} for params, decay in pairs if params]


def _kept(module: nn.Module) -> list[nn.Parameter]:
    """What of a module's own parameters never decays: vectors and scalars, all of a norm, and what a part names."""
    named = module.no_weight_decay if isinstance(module, (ModelPart, GroupedLinear)) else ()
    own = module.named_parameters(recurse=False)
    return [p for name, p in own if p.dim() < 2 or name in named or isinstance(module, Norm)]


def fused(model: nn.Module) -> bool:
    """Whether every learning parameter lies where torch steps all of them in one kernel."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return all(p.device.type in FUSED and p.is_floating_point() for p in learning)
