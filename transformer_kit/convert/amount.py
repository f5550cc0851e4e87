"""The number of parameters that a config describes, and a check that the weight files can hold them."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.weights import Weights
from transformer_kit.convert.words import of_config
from transformer_kit.model.build import assemble_distinct
from transformer_kit.spec.schema import Spec

SPARED = 1_000_000
"""Largest number of missing parameters for which every missing tensor is named."""


def parameters_of(spec: Spec, config: Mapping[str, Any], declaration: Declaration) -> int:
    """Number of parameters, counted on the distinct layers. Raises ConvertError if the model cannot be built."""
    with of_config(config, declaration):
        model, places = assemble_distinct(spec)
    repeated = sum((len(p) - 1) * _elements(layer) for layer, p in zip(model.blocks(), places, strict=True))
    return _elements(model) + repeated


def check_amount(weights: Weights, parameters: int) -> None:
    """Raise ConvertError if most weights are missing. To name them, the kit would have to build a model that may be too
    large.
    """
    held = sum(math.prod(weights.shape(name)) for name in weights.names())
    if parameters > SPARED + 4 * held:
        text = f"its files hold {held:,} parameters, but its config describes {parameters:,}"
        raise ConvertError(str(weights.folder), [f"{text}; add the missing files"])


def _elements(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
