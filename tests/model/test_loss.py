"""The loss a piece at a time: the value and every gradient of the plain way, for any head."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from transformer_kit import Spec, build
from transformer_kit.model.loss import IGNORE, rows_for, summed
from transformer_kit.model.model import Model
from transformer_kit.transform import onednn_linear as linear

V, D = 61, 16
HEADS = [
    "lm",
    {"type": "lm", "tied": True, "softcap": 3.0, "bias": True},
    {"type": "lm", "width": 8, "scale": 0.5},
    {"type": "transformed", "tied": True},
]


def _model(head: Any = "lm", ffn: Any = "mlp") -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": V, "d_model": D, "max_seq_len": 32}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}, "head": head}}))


def _batch() -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(V, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    targets[0, 2:5] = IGNORE
    targets[2] = IGNORE
    return tokens, targets


def _loss(model: Model, rows: int | None) -> Tensor:
    """`summed`, `rows` at a time; of all logits by torch's own function when None."""
    tokens, targets = _batch()
    x, _ = model._features(tokens, None, None)
    if rows is not None:
        return summed(model.head, x.flatten(0, 1), model.embedding.weight, targets.flatten(), rows)
    logits = model.head(x, model.embedding.weight).flatten(0, 1).float()
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")


def _gradients(model: Model, loss: Tensor) -> list[Tensor | None]:
    model.zero_grad()
    loss.backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("rows", [1, 4, 20, 1000])
def test_pieces_equal_the_whole(head: Any, rows: int) -> None:
    model = _model(head)
    torch.testing.assert_close(_loss(model, rows), _loss(model, None))
    pairs = zip(_gradients(model, 1.7 * _loss(model, rows)), _gradients(model, 1.7 * _loss(model, None)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(_loss(model, rows), _loss(model, None))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("rows", [4, 1000])
def test_products_of_onednn_give_the_same_loss(head: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, multiply = _model(head), [], linear._multiply
    expected = [_loss(model, rows).detach(), *_gradients(model, _loss(model, rows))]
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr(linear, "WORK", 1)
    monkeypatch.setattr(linear, "_multiply", lambda *given: made.append(given) or multiply(*given))
    monkeypatch.setattr("transformer_kit.model.summed.COLUMNS", 7)
    found = [_loss(model, rows).detach(), *_gradients(model, _loss(model, rows))]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert made


class _Written(nn.Module):
    """A head whose logits are written to after the product, by what keeps them for the backward pass."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table).tanh_()


@pytest.mark.parametrize("rows", [4, 1000])
def test_logits_that_are_needed_later_stay(rows: int) -> None:
    model = _model({"type": "lm", "tied": True})
    model.head = _Written()
    pairs = zip(_gradients(model, _loss(model, rows)), _gradients(model, _loss(model, None)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rows", [5, 1000])
def test_frozen_weights_get_no_gradient_and_change_none(rows: int) -> None:
    model = _model({"type": "lm", "bias": True})
    model.head.requires_grad_(False)
    model.layers[0].requires_grad_(False)
    pairs = zip(_gradients(model, _loss(model, rows)), _gradients(model, _loss(model, None)), strict=True)
    for found, expected in pairs:
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected)


def test_where_nothing_learns_there_is_just_the_loss() -> None:
    model = _model().requires_grad_(False)
    pieces = _loss(model, 4)
    assert not pieces.requires_grad
    torch.testing.assert_close(pieces, _loss(model, None))


@pytest.mark.parametrize("rows", [4, 1000])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_in_bfloat16_as_the_whole(head: Any, rows: int) -> None:
    model = _model(head)
    found = []
    for how in (rows, None):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = _loss(model, how)
        found.append([loss, *(g for g in _gradients(model, loss) if g is not None)])
    for pieces, whole in zip(*found, strict=True):
        assert pieces.dtype == whole.dtype
        torch.testing.assert_close(pieces, whole, rtol=2e-2, atol=2e-2)


def test_no_product_is_whole_that_would_be_copied_to_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer_kit.model.summed.COLUMNS", 7)
    model, made = _model({"type": "lm", "tied": True}), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                made.append(tuple(out.shape))
            return out

    with torch.autocast("cpu", dtype=torch.bfloat16), Watch():
        _loss(model, 4)
    assert (7, D) in made
    assert (V, D) not in made


def test_gradients_are_kept_once() -> None:
    x = torch.randn(8, D, requires_grad=True)
    model = _model()
    total = summed(model.head, x, model.embedding.weight, torch.zeros(8, dtype=torch.long), 3)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="kept once; compute the loss again"):
        total.backward()


def test_model_loss_is_the_mean_times_the_count_with_what_routers_add() -> None:
    router = {"type": "softmax", "top_k": 2, "learning": {"load_balancing_loss": 0.5, "z_loss": 0.1}}
    model = _model(ffn={"type": "moe", "n_experts": 4, "router": router, "expert": "mlp"}).train()
    tokens, targets = _batch()
    total, count = model.loss(tokens, targets)
    assert count == (targets != IGNORE).sum()
    torch.testing.assert_close(total / count, model(tokens, targets).loss)
    model.eval()
    assert model.loss(tokens, targets)[0] < total  # nothing is added where nothing learns


def test_pieces_are_large_enough_to_be_fast_and_not_many() -> None:
    assert rows_for(128_256, 1_000) == 512  # each of at least so many tokens
    assert rows_for(256, 1_000) == 65_536  # or of 64 MiB of logits
    assert rows_for(128_256, 16_384) == 2_048  # and eight at most
    assert rows_for(128_256, 16_385) == 2_049
    assert rows_for(128_256, 1_000, least=64) == 130  # though with fewer there is as much as may be


def test_large_vocabulary_is_never_whole_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    tokens, targets = _batch()
    monkeypatch.setattr("transformer_kit.model.model.rows_for", lambda vocabulary, tokens, least: 4)
    seen = []
    model.head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape[1]))
    model.loss(tokens, targets)[0].backward()
    assert seen == [4, 4, 4, 4, 4, 1]
