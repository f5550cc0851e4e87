"""Small models to generate with."""

from collections.abc import Callable

import pytest
from torch import nn

from transformer_kit.model.build import build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec


def tiny(position: str = "rope", window: int | None = None, vocab_size: int = 40, max_seq_len: int = 32) -> Model:
    """Two layers whose weights are large enough that logits differ clearly."""
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4, "window": window}, "ffn": "mlp"}
    model = {
        "vocab_size": vocab_size,
        "d_model": 32,
        "max_seq_len": max_seq_len,
        "dropout": 0.5,
        "position": {"type": "sinusoidal", "scale": 1.0} if position == "sinusoidal" else position,
        "layers": {"count": 2, "block": block},
    }
    made = build(Spec.of({"model": model}), seed=1)
    for module in made.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(6)
    return made


@pytest.fixture(scope="session")
def make() -> Callable[..., Model]:
    return tiny


@pytest.fixture
def model() -> Model:
    return tiny()
