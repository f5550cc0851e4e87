"""Dropout before the layers."""

import pytest
import torch
from torch import Tensor

from transformer_kit import Spec, build


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_what_enters_the_layers_is_dropped_in_training_alone(rate: float) -> None:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    page = {"vocab_size": 50, "d_model": 64, "max_seq_len": 32, "position": "rope", "dropout": rate}
    model = build(Spec.of({"model": {**page, "layers": {"count": 1, "block": block}}}))
    entered: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    for training in (True, False):
        model.train(training)(torch.arange(32)[None])
    shares = [float((x == 0).float().mean()) for x in entered]
    assert shares == [pytest.approx(rate, abs=0.1), 0.0]
