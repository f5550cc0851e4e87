"""A prepared model generates what the model did, and refuses to train, to move and to take other weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from transformer_kit import build, load, prepare_for_inference, save
from transformer_kit.generate import generate
from transformer_kit.model.folder import FolderError
from transformer_kit.model.model import Model
from transformer_kit.transform import prepare
from transformer_kit.transform.linear_layers import QuantizedLinear, linear_layers

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_a_prepared_model_generates_what_it_did(
    make: Callable[..., Model], batch: int, prompts: list[list[int]]
) -> None:
    expected = generate(make(), prompts, max_new_tokens=12)
    model = make()
    assert prepare_for_inference(model, batch=batch) is model
    assert generate(model, prompts, max_new_tokens=12) == expected


def test_int8_quantizes_every_linear_layer_the_head_too(make: Callable[..., Model]) -> None:
    model, plain = prepare_for_inference(make(), int8=True), make()
    assert all(isinstance(layer, QuantizedLinear) for _, layer in linear_layers(model))
    assert "head.out" in dict(linear_layers(model))
    ids = torch.tensor(PROMPTS[:1])
    off = (model(ids).logits - plain(ids).logits).norm() / plain(ids).logits.norm()
    assert 0 < off < 0.03


def test_a_tied_head_shares_the_table_and_adds_its_bias_once(model: Model) -> None:
    nn.init.normal_(model.head.bias)
    ids = torch.tensor(PROMPTS[:1])
    expected = model(ids).logits
    prepare_for_inference(model)
    assert model.head.out.weight is model.embedding.weight
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("asked", ["train", "backward", "loss", "load_state_dict", "to", "half"])
def test_a_prepared_model_refuses_and_says_why(model: Model, asked: str) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    prepare_for_inference(model)
    out = model(tokens, tokens)
    what = {
        "train": model.train,
        "backward": lambda: out.logits.sum().backward(),
        "loss": lambda: out.loss.backward(),
        "load_state_dict": lambda: model.load_state_dict({}),
        "to": lambda: model.to(torch.bfloat16),
        "half": model.half,
    }[asked]
    with pytest.raises(RuntimeError, match=r"the model was prepared for inference, so it cannot .*build or load it"):
        what()
    assert not any(module.training for module in model.modules())


def test_eval_and_evaluation_go_on(model: Model) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    expected = model(tokens, tokens).loss
    prepare_for_inference(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, tokens).loss, expected)


def test_it_is_not_saved(model: Model, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="the model was prepared for inference; save it before"):
        save(prepare_for_inference(model), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_loaded_model_is_prepared_as_one_that_was_built(model: Model, tmp_path: Path) -> None:
    expected = generate(model, PROMPTS, max_new_tokens=5)
    folder = save(model, tmp_path / "model")
    assert generate(prepare_for_inference(load(folder), batch=2), PROMPTS, max_new_tokens=5) == expected


def test_what_cannot_be_prepared_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="batch must be a whole number, at least 1, got 0"):
        prepare_for_inference(model, batch=0)
    with pytest.raises(ValueError, match="on the meta device has no weights to prepare"):
        prepare_for_inference(build("tutorial", device="meta"))
    prepare_for_inference(model)
    with pytest.raises(ValueError, match="is prepared for inference already"):
        prepare_for_inference(model)


class Counting(nn.Module):
    """Acts differently at every fifth call."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return -x if self.count % 5 == 0 else x


def test_a_part_whose_python_state_changes_is_asked_at_every_step(make: Callable[..., Model]) -> None:
    found = []
    for ready in (False, True):
        model = make()
        if ready:
            prepare_for_inference(model)
        model.layers[1].ffn.activation = Counting()
        found.append(generate(model, PROMPTS[:1], max_new_tokens=20))
    assert found[0] == found[1]


def test_models_with_one_token_of_context_are_prepared(make: Callable[..., Model]) -> None:
    model = prepare_for_inference(make(max_seq_len=1, position="learned"))
    assert generate(model, [[1]], max_new_tokens=3)


def test_transforms_run_in_the_order_of_the_pipeline(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(prepare, "transformed", lambda model, **transforms: given.update(transforms))
    prepare_for_inference(model, int8=True)
    assert [name for name, transform in given.items() if transform] == ["untied_head", "fused_projections", "int8"]
