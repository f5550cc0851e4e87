"""`freeze`: which parameters stop learning, and what is refused."""

import pytest
import torch

from transformer_kit import Spec, build
from transformer_kit.model.model import Model
from transformer_kit.transform.freeze import freeze


@pytest.fixture
def model() -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 8}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}}}))


def test_parameters_that_match_do_not_learn(model: Model) -> None:
    assert freeze(model, ("layers.0.*", "embedding.*")) is model
    tokens = torch.zeros(1, 4, dtype=torch.long)
    model(tokens, tokens).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(("layers.0.", "embedding.")), name


def test_a_pattern_that_matches_nothing_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"no parameter is named like 'layer\.0\.\*'; names are embedding"):
        freeze(model, ("layer.0.*",))


def test_a_model_of_which_nothing_learns_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="every parameter is frozen"):
        freeze(model, ("*",))
