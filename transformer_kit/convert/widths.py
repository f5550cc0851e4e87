"""A spec with explicit widths, read from the built model."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from registry.experts import StackedExperts
from registry.grouped import GroupedLinear
from transformer_kit.model.model import Model


def with_widths(page: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The canonical spec of `model` with every d_ff explicit, because other classes have other default widths."""
    full = copy.deepcopy(dict(page))
    for block, layer in zip(full["model"]["layers"]["blocks"], model.blocks(), strict=True):
        _write(block.get("ffn"), getattr(layer, "ffn", None))
    return full


def _write(options: Any, module: Any) -> None:
    if not isinstance(options, dict) or module is None:
        return
    down = getattr(module, "down", None)
    if options.get("d_ff", ...) is None and isinstance(down, (nn.Linear, GroupedLinear)):
        options["d_ff"] = down.in_features
    _write(options.get("shared"), getattr(module, "shared", None))
    experts = getattr(module, "experts", None)
    _write(options.get("expert"), experts.stacked if isinstance(experts, StackedExperts) else None)
