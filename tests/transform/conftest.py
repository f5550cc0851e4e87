"""A small model to transform: grouped heads, some biases, a tied head with a bias."""

from collections.abc import Callable
from typing import Any

import pytest

from transformer_kit import Spec, build
from transformer_kit.model.model import Model


def small(**changes: Any) -> Model:
    block = {
        "type": "pre_norm",
        "mixer": {"type": "attention", "n_heads": 4, "n_kv_heads": 2, "bias": ["q", "out"]},
        "ffn": "gated",
    }
    sizes = {"vocab_size": 97, "d_model": 64, "max_seq_len": 40, "position": "rope"}
    head = {"type": "lm", "tied": True, "bias": True}
    page = {**sizes, "layers": {"count": 2, "block": block}, "head": head, **changes}
    return build(Spec.of({"model": page}), seed=1).eval()


@pytest.fixture
def make() -> Callable[..., Model]:
    return small


@pytest.fixture
def model() -> Model:
    return small()
