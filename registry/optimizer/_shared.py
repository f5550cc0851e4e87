"""Which parameters decay, and whether one kernel can step them all."""

from torch import nn

FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Devices for which torch has fused optimizer steps."""


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups of what learns: matrices and tables decay, vectors (norms, biases) and scalars do not."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("no parameter learns: all are frozen")
    decaying = [p for p in learning if p.dim() >= 2]
    others = [p for p in learning if p.dim() < 2]
    pairs = ((decaying, weight_decay), (others, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in pairs if params]


def fused(model: nn.Module) -> bool:
    """Whether every learning parameter lies where torch steps all of them in one kernel."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return all(p.device.type in FUSED and p.is_floating_point() for p in learning)
