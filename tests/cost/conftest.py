"""Small specs to count."""

from collections.abc import Callable
from typing import Any

import pytest

from transformer_kit.spec.schema import Spec

Page = Callable[..., Spec]


@pytest.fixture
def page() -> Page:
    """A small spec; keywords replace keys of `model`, or, below their own names, of mixer, block and layers."""

    def make(
        mixer: dict[str, Any] | None = None,
        block: dict[str, Any] | None = None,
        layers: dict[str, Any] | None = None,
        **model: Any,
    ) -> Spec:
        attention = {"type": "attention", "n_heads": 4, "n_kv_heads": 2, **(mixer or {})}
        ffn = {"type": "gated", "d_ff": 256}
        stack = {"count": 4, "block": {"type": "pre_norm", "mixer": attention, "ffn": ffn, **(block or {})}}
        values = {
            "vocab_size": 512,
            "d_model": 128,
            "max_seq_len": 128,
            "position": "rope",
            "norm": "rms_norm",
            "layers": {**stack, **(layers or {})},
            "head": {"type": "lm", "tied": True},
            **model,
        }
        return Spec.of({"model": values})

    return make
