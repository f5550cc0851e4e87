"""What does nothing is not called, and is still there."""

import copy
import pickle

import pytest
import torch
from torch import nn

from transformer_kit import Spec, build
from transformer_kit.model.bypass import same
from transformer_kit.model.model import Model


@pytest.fixture
def model() -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": "gated"}
    page = {
        "vocab_size": 40,
        "d_model": 32,
        "max_seq_len": 16,
        "position": "none",
        "layers": {"count": 1, "block": block},
    }
    return build(Spec.of({"model": page})).eval()


def test_what_does_nothing_is_never_called(model: Model) -> None:
    called: list[nn.Module] = []
    for module in model.modules():
        module.register_forward_hook(lambda module, given, out: called.append(module))
    model(torch.tensor([[1, 2]]))
    idle = [m for m in model.modules() if type(m) is nn.Identity or getattr(m, "does_nothing", False)]
    assert len(idle) > 8
    assert not [m for m in idle if m in called]


def test_what_does_nothing_is_still_listed_and_gives_way_to_what_is_put_in_its_place(model: Model) -> None:
    mixer = model.layers[0].mixer
    assert "clip" in dict(mixer.named_children())
    assert mixer.clip is same
    before = model(torch.tensor([[1, 2]])).logits
    mixer.clip = nn.Hardtanh(-1e-3, 1e-3)
    assert not torch.allclose(model(torch.tensor([[1, 2]])).logits, before)


def test_copies_do_the_same(model: Model) -> None:
    expected = model(torch.tensor([[1, 2]])).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.layers[0].mixer.clip is same
        assert torch.equal(other(torch.tensor([[1, 2]])).logits, expected)
