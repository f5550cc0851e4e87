"""A table that is looked up and read: torch's own gradients, and never two of its size."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from transformer_kit import Spec, build
from transformer_kit.model import lookups
from transformer_kit.model.lookups import Lookups, sparse
from transformer_kit.model.model import Model

V, D = 61, 16
TIED = {"type": "lm", "tied": True}
EMBEDDINGS = ["token", {"type": "token", "scale": 4.0, "norm": "rms_norm"}, {"type": "token", "types": 2}]


def _model(embedding: Any = "token", head: Any = TIED) -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    sizes = {"vocab_size": V, "d_model": D, "max_seq_len": 32}
    layers = {"count": 1, "block": block}
    return build(Spec.of({"model": {**sizes, "layers": layers, "embedding": embedding, "head": head}}))


def _batch() -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(V, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    return tokens, targets


def _gradients(model: Model) -> dict[str, Tensor | None]:
    tokens, targets = _batch()
    model.zero_grad()
    (1.7 * model.loss(tokens, targets)[0]).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def _plainly(model: Model, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor | None]:
    with monkeypatch.context() as patch:
        patch.setattr(lookups, "DEVICES", ())
        return _gradients(model)


@pytest.mark.parametrize("head", [TIED, "lm"], ids=str)
@pytest.mark.parametrize("embedding", EMBEDDINGS, ids=str)
def test_gradients_are_torchs_own(embedding: Any, head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = _model(embedding, head), []
    monkeypatch.setattr(lookups, "sparse", lambda *given: made.append(given) or sparse(*given))
    found, expected = _gradients(model), _plainly(model, monkeypatch)
    assert len(made) == (head == TIED)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
        assert found[name] is None or found[name].layout == torch.strided  # type: ignore[union-attr]


def test_gradients_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    once = {name: p.clone() for name, p in _gradients(model).items() if p is not None}
    monkeypatch.setattr(model, "zero_grad", lambda: None)
    for name, twice in _gradients(model).items():
        torch.testing.assert_close(twice, 2 * once[name])


@pytest.mark.parametrize("frozen", ["embedding", "head", "layers"])
def test_what_is_frozen_stays_out(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(head="lm")
    getattr(model, frozen).requires_grad_(False)
    found, expected = _gradients(model), _plainly(model, monkeypatch)
    for name, gradient in expected.items():
        assert (gradient is None) == name.startswith(frozen)
        torch.testing.assert_close(found[name], gradient)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_each_row_is_in_it_once(ids: list[int]) -> None:
    rows, slope = torch.tensor(ids), torch.randn(len(ids), 4)
    found = sparse(rows, slope, torch.Size((10, 4)))
    torch.testing.assert_close(found.to_dense(), torch.zeros(10, 4).index_add_(0, rows, slope))
    counted = found._indices()[0][found._values().abs().sum(1) > 0]
    assert sorted(counted.tolist()) == sorted(set(ids))


def test_a_lookup_with_settings_of_its_own_is_torchs() -> None:
    table = nn.Parameter(torch.randn(V, D))
    ids = torch.tensor([[1, 2, 2]])
    with Lookups(table):
        assert F.embedding(ids, table).grad_fn.name() == "_RowsBackward"  # type: ignore[union-attr]
        F.embedding(ids, table, padding_idx=2).sum().backward()
    assert table.grad is not None
    assert table.grad[1].tolist() == [1.0] * D
    assert not table.grad[2].any()


def test_ids_of_any_kind_and_shape() -> None:
    table = nn.Parameter(torch.randn(V, D))
    for ids in (torch.tensor([[3, 3, 5]], dtype=torch.int32), torch.tensor(4)):
        lookups = Lookups(table)
        lookups.is_read = True
        with lookups:
            found = F.embedding(ids, table).square().sum() + lookups.read.square().sum()
        expected = table[ids.long()].square().sum() + table.square().sum()
        pair = [torch.autograd.grad(loss, table)[0] for loss in (found, expected)]
        torch.testing.assert_close(*pair)


def test_tokens_in_int32() -> None:
    model = _model()
    expected, (tokens, targets) = _gradients(model), _batch()
    model.zero_grad()
    (1.7 * model.loss(tokens.int(), targets)[0]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_more_tokens_than_rows_are_not_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    monkeypatch.setattr(lookups, "sparse", lambda *_: pytest.fail("made sparse"))
    tokens, targets = torch.randint(V, (2, 4, 16))
    model.loss(tokens, targets)[0].backward()
    found = model.embedding.weight.grad
    model.zero_grad()
    monkeypatch.setattr(lookups, "DEVICES", ())
    model.loss(tokens, targets)[0].backward()
    torch.testing.assert_close(found, model.embedding.weight.grad)


def test_a_table_that_is_written_to_when_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    model.embedding.table.max_norm = 0.5
    found, expected = _gradients(model), _plainly(model, monkeypatch)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


class _Shifted(nn.Module):
    """A head that reads the table plus something: autograd gives both terms one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(V, D))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table + self.shift)


@pytest.mark.parametrize("rows", [4, 1000])
def test_a_gradient_that_two_share_is_not_added_to(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    model.head = _Shifted()
    monkeypatch.setattr("transformer_kit.model.model.rows_for", lambda *_: rows)
    found, (tokens, targets) = (
        _gradients(model),
        torch.randint(V, (2, 3, 7), generator=torch.Generator().manual_seed(0)),
    )
    model.zero_grad()
    loss = model(tokens, targets).loss
    assert loss is not None
    (1.7 * targets.numel() * loss).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-3)


def test_a_compiled_loss_is_one_graph() -> None:
    model = _model()
    expected, (tokens, targets) = _gradients(model), _batch()
    model.zero_grad()
    (1.7 * torch.compile(model.loss, backend="aot_eager", fullgraph=True)(tokens, targets)[0]).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4)


class _Large(TorchDispatchMode):
    """Notes tensors that are made as large as the table."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor) and not t.is_sparse}
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not out.is_sparse:
            storage = out.untyped_storage()
            if storage.nbytes() >= 4 * V * D and storage._cdata not in given:
                self.made.append(str(func))
        return out


def test_there_is_one_gradient_as_large_as_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    with _Large() as mine:
        _gradients(model)
    with _Large() as torchs:
        _plainly(model, monkeypatch)
    assert len(torchs.made) - len(mine.made) == 2, (torchs.made, mine.made)  # the lookup's, and the sum of both


def test_rows_of_another_table_are_torchs() -> None:
    table, other = nn.Parameter(torch.randn(V, D)), nn.Parameter(torch.randn(V, D))
    with Lookups(table):
        F.embedding(torch.tensor([[1, 2]]), other).sum().backward()
    assert table.grad is None
    assert other.grad is not None
