"""Chunked cross-entropy: the value and every gradient of the plain way, for any head."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from registry.contracts import Head
from transformer_kit import Spec, build
from transformer_kit.model import loss
from transformer_kit.model.loss import IGNORE, chunk_size, chunked_cross_entropy
from transformer_kit.model.model import Model
from transformer_kit.transform import onednn_linear

V, D = 61, 16
LINEAR = ["lm", {"type": "lm", "tied": True, "bias": True}]
OTHERS = [
    {"type": "lm", "tied": True, "softcap": 3.0, "bias": True},
    {"type": "lm", "width": 8, "scale": 0.5},
    {"type": "transformed", "tied": True},
]
HEADS = [*LINEAR, *OTHERS]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads add in another order each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _model(head: Any = "lm", ffn: Any = "mlp") -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": V, "d_model": D, "max_seq_len": 32}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}, "head": head}}))


def _batch() -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(V, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    targets[0, 2:5] = IGNORE
    targets[2] = IGNORE
    return tokens, targets


def _loss(model: Model, size: int | None, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The loss in chunks of `size` tokens; of all logits by torch's own function when None."""
    with monkeypatch.context() as patch:
        patch.setattr("transformer_kit.model.model.chunk_size", lambda vocab, tokens: size)
        found = model(*_batch(), skip_logits=size is not None).loss
    assert found is not None
    return found


def _gradients(model: Model, loss: Tensor) -> list[Tensor | None]:
    model.zero_grad()
    loss.backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("size", [1, 4, 20, 1000])
def test_chunks_equal_the_whole(head: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(head)
    losses = [1.7 * _loss(model, how, monkeypatch) for how in (size, None)]
    torch.testing.assert_close(*losses)
    for found, expected in zip(*(_gradients(model, one) for one in losses), strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(1.7 * _loss(model, size, monkeypatch), losses[1])


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_heads_say_truly_whether_they_are_linear(head: Any) -> None:
    model, x = _model(head), torch.randn(2, 3, D)
    linear = model.head.linear(model.embedding.weight)
    assert (linear is not None) == (head in LINEAR)
    if linear is not None:
        torch.testing.assert_close(model.head(x, model.embedding.weight), F.linear(x, *linear))


def test_hooks_of_the_model_and_its_parts_see_training() -> None:
    model, seen = _model(), set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
    model(*_batch(), skip_logits=True)
    assert {"", "embedding", "layers.0", "layers.1", "norm", "head"} <= seen


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("size", [4, 1000])
def test_products_of_onednn_give_the_same_loss(head: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, multiply = _model(head), [], onednn_linear._multiply

    def found() -> list[Tensor | None]:
        total = _loss(model, size, monkeypatch)
        return [total.detach(), *_gradients(model, total)]

    expected = found()
    monkeypatch.setattr(onednn_linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr(onednn_linear, "WORK", 1)
    monkeypatch.setattr(onednn_linear, "_multiply", lambda *given: made.append(given) or multiply(*given))
    monkeypatch.setattr(loss, "SLAB", 7)
    for mine, theirs in zip(found(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert bool(made) == (head in LINEAR)


class _Written(Head):
    """A head whose logits are written to after the product, by what keeps them for the backward pass."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table).tanh_()


class _Shifted(_Written):
    """A head that reads the table plus something: autograd gives both terms one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(V, D))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table + self.shift)


@pytest.mark.parametrize("size", [4, 1000])
@pytest.mark.parametrize("head", [_Written, _Shifted])
def test_heads_that_write_and_share(head: type[_Written], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model({"type": "lm", "tied": True})
    model.head = head()
    pairs = [_gradients(model, 1.7 * _loss(model, how, monkeypatch)) for how in (size, None)]
    for found, expected in zip(*pairs, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("head", [{"type": "lm", "bias": True}, OTHERS[2]], ids=str)
@pytest.mark.parametrize("frozen", ["embedding", "head", "layers"])
def test_frozen_weights_get_no_gradient_and_change_none(
    head: Any, frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(head)
    getattr(model, frozen).requires_grad_(False)
    pairs = [_gradients(model, _loss(model, how, monkeypatch)) for how in (5, None)]
    for found, expected in zip(*pairs, strict=True):
        assert (found is None) == (expected is None)
        torch.testing.assert_close(found, expected)


def test_where_nothing_learns_there_is_just_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model().requires_grad_(False)
    found = _loss(model, 4, monkeypatch)
    assert not found.requires_grad
    torch.testing.assert_close(found, _loss(model, None, monkeypatch))


@pytest.mark.parametrize("size", [4, 1000])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_in_bfloat16_as_the_whole(head: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "SLAB", 7)
    model, found = _model(head), []
    for how in (size, None):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = _loss(model, how, monkeypatch)
        found.append([total, *(g for g in _gradients(model, total) if g is not None)])
    for chunked, whole in zip(*found, strict=True):
        assert chunked.dtype == whole.dtype
        torch.testing.assert_close(chunked, whole, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("head", LINEAR, ids=str)
def test_a_model_that_is_in_bfloat16(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(head).bfloat16()
    pairs = [_gradients(model, _loss(model, how, monkeypatch)) for how in (4, None)]
    for found, expected in zip(*pairs, strict=True):
        torch.testing.assert_close(found, expected, rtol=3e-2, atol=3e-2)


class _Products(TorchDispatchMode):
    """Notes shapes of matrix products, and casts of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, ...]] = []
        self.casts = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.made.append(tuple(out.shape))
        self.casts += func is torch.ops.aten._to_copy.default and out.shape == (V, D)
        return out


def test_in_mixed_precision_the_table_is_cast_once_and_no_second_gradient_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "SLAB", 7)
    model = _model({"type": "lm", "tied": True})
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False), _Products() as products:
        _loss(model, 4, monkeypatch)
    assert (7, D) in products.made
    assert (V, D) not in products.made
    assert products.casts == 1


def test_gradients_are_kept_once() -> None:
    model, targets = _model(), torch.zeros(2, 4, dtype=torch.long)
    x = torch.randn(2, 4, D, requires_grad=True)
    total = chunked_cross_entropy(model.head, x, model.embedding.weight, targets, 3)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="kept once; compute the loss again"):
        total.backward()


def test_what_routers_add_is_in_the_loss() -> None:
    router = {"type": "softmax", "top_k": 2, "learning": {"load_balancing_loss": 0.5, "z_loss": 0.1}}
    model = _model(ffn={"type": "moe", "n_experts": 4, "router": router, "expert": "mlp"}).train()
    found = model(*_batch(), skip_logits=True)
    assert found.logits.shape == (3, 0, V)
    torch.testing.assert_close(found.loss, model(*_batch()).loss)
    model.eval()
    assert model(*_batch(), skip_logits=True).loss < found.loss  # nothing is added where nothing learns


def test_a_compiled_training_pass_is_one_graph() -> None:
    model = _model({"type": "lm", "tied": True})
    expected = _gradients(model, model(*_batch(), skip_logits=True).loss)  # type: ignore[arg-type]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = _gradients(model, compiled(*_batch(), skip_logits=True).loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_chunks_are_large_enough_to_be_fast_and_not_many() -> None:
    assert chunk_size(128_256, 1_000) == 512  # each of at least so many tokens
    assert chunk_size(256, 1_000) == 65_536  # or of 64 MiB of logits
    assert chunk_size(128_256, 16_384) == 2_048  # and eight at most
    assert chunk_size(128_256, 16_385) == 2_049


@pytest.mark.parametrize("head", ["lm", OTHERS[0]], ids=str)
def test_all_logits_are_never_in_memory(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = _model(head), []
    model.head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape[1]))
    _loss(model, 4, monkeypatch).backward()
    assert seen == [4, 4, 4, 4, 4, 1]
