"""Compilation of each layer by itself: equal layers share their compiled code."""

from typing import Any

from transformer_kit.model.model import Model


def compile_layers(model: Model, **options: Any) -> Model:
    """Compile each layer in place at its first call; `options` are those of `torch.compile`."""
    for layer in model.blocks():
        layer.compile(**options)
    return model
