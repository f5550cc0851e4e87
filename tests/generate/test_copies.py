"""Copies of weights: made for a generation that is long enough, or once for many."""

from collections.abc import Callable
from functools import partial
from threading import Thread, get_ident

import pytest
import torch
from torch import Tensor, nn

from transformer_kit.generate import copies, generate, prepared, stream
from transformer_kit.generate.fast import Laid
from transformer_kit.generate.layouts import Packed, Packer
from transformer_kit.model.model import Model
from transformer_kit.train.early import EarlySteps

ONE, TWO = [[1, 2, 3]], [[1, 2, 3], [4, 5]]
THREE = [*TWO, [6]]


class Made:
    """Copies that were made, and products with them."""

    def __init__(self) -> None:
        self.copies = self.products = 0

    def layout_for(self, weight: Tensor, rows: int) -> Packer:
        return self.pack

    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        self.copies += 1
        weight = weight.clone()

        def multiply(x: Tensor) -> Tensor:
            self.products += 1
            return nn.functional.linear(x, weight, bias)

        return multiply


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(copies, "layout_for", made.layout_for)
    return made


def _changed(model: Model) -> bool:
    return any({"forward", "project"} & set(m.__dict__) for m in model.modules())


@pytest.mark.parametrize(
    ("prompts", "tokens", "copied"), [(ONE, 7, 0), (ONE, 8, 1), (TWO, 3, 0), (TWO, 4, 1), (THREE, 3, 0)]
)
def test_a_copy_is_made_where_it_pays(
    model: Model, made: Made, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]], tokens: int, copied: bool
) -> None:
    monkeypatch.setattr(copies, "PAYS", 8)
    model.generate(prompts, max_new_tokens=tokens)
    assert (made.copies > 0) == (made.products > 0) == copied


def test_a_model_is_prepared_once_for_many_generations(model: Model, made: Made) -> None:
    expected = model.generate(ONE, max_new_tokens=4)
    with prepared(model):
        assert model.generate(ONE, max_new_tokens=4) == expected
        copied, products = made.copies, made.products
        assert model.generate(ONE, max_new_tokens=4) == expected
        assert copied == made.copies > 0
        assert made.products == 2 * products > 0
    assert not _changed(model)
    assert model.generate(ONE, max_new_tokens=4) == expected
    assert made.products == 2 * products


def test_what_it_is_not_prepared_for_uses_the_weights(model: Model, made: Made) -> None:
    expected, rounded = generate(model, TWO, max_new_tokens=4), generate(model, ONE, max_new_tokens=4, int8=True)
    with prepared(model):
        assert generate(model, TWO, max_new_tokens=4) == expected
        assert generate(model, ONE, max_new_tokens=4, int8=True) == rounded
        assert not made.products


def test_what_is_prepared_without_a_layout_is_not_in_the_way(
    model: Model, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some processors have a layout for several texts and none for one."""
    monkeypatch.setattr(copies, "layout_for", lambda weight, rows: made.pack if rows > 1 else None)
    monkeypatch.setattr(copies, "PAYS", 1)
    with prepared(model):
        generate(model, ONE, max_new_tokens=4)
        assert not made.copies
        generate(model, TWO, max_new_tokens=4)
        assert made.products


def test_eight_bits_are_prepared_as_well(model: Model, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "eight_bits", made.pack)
    with prepared(model, int8=True):
        generate(model, ONE, max_new_tokens=4)
        assert not made.products
        generate(model, ONE, max_new_tokens=4, int8=True)
        assert made.products


@torch.no_grad()
def _write(model: Model) -> None:
    for parameter in model.parameters():
        parameter.mul_(-1.5)


def _learn(step: Callable[[torch.optim.Optimizer, Tensor], None], model: Model) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3, fused=True)
    tokens = torch.tensor(ONE)
    loss = model(tokens, tokens).loss
    assert loss is not None
    step(optimizer, loss)
    model.zero_grad()


def _late(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    optimizer.step()


def _early(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    with EarlySteps(optimizer).on():
        loss.backward()


@pytest.mark.parametrize("change", [_write, partial(_learn, _late), partial(_learn, _early)])
def test_a_weight_that_changes_in_between_counts(model: Model, made: Made, change: Callable[[Model], None]) -> None:
    """Fused optimizers do not count what they write."""
    model.eval()
    with prepared(model):
        before = generate(model, ONE, max_new_tokens=6)
        change(model)
        products = made.products
        after = generate(model, ONE, max_new_tokens=6)
        assert made.products == products
    assert generate(model, ONE, max_new_tokens=6) == after != before


def test_nobody_counts_steps_any_more_once_nothing_is_laid_out(model: Model, made: Made) -> None:
    weight = model.embedding.weight
    with prepared(model):
        assert made.copies
    before = weight._version
    _learn(_late, model)
    assert weight._version == before


def test_steps_that_go_on_afterwards_keep_what_was_prepared(model: Model, made: Made) -> None:
    expected = list(stream(model, ONE, max_new_tokens=6))
    with prepared(model):
        begun, later = stream(model, ONE, max_new_tokens=6), stream(model, ONE, max_new_tokens=6)
        found = [next(begun), next(begun)]
        copied, products = made.copies, made.products
    assert [*found, *begun] == expected
    assert (copied, made.products) == (made.copies, 5 * products)
    assert not _changed(model)
    assert list(later) == expected
    assert not _changed(model)


def test_what_is_laid_out_again_is_fresh(model: Model, made: Made) -> None:
    laid = Laid(model, made.pack, 1)
    with laid:
        pass
    model.layers[0].mixer.q.weight = nn.Parameter(model.layers[0].mixer.q.weight.detach().clone())
    with laid, laid.active():
        assert not laid.switch.stale


def test_one_thread_at_a_time_uses_copies(model: Model, made: Made) -> None:
    expected = generate(model, ONE, max_new_tokens=4)
    found: list[list[list[int]]] = []
    with prepared(model):
        laid = copies.laid_for(model, 1, 4, False)
        other = Thread(target=lambda: found.append(generate(model, ONE, max_new_tokens=4)))
        with laid.active():
            other.start()
            other.join()
            assert found == [expected]
            assert not made.products
            assert laid.switch.thread == get_ident()
        assert generate(model, ONE, max_new_tokens=4) == expected
        assert made.products


def _gradients(model: Model) -> list[Tensor]:
    model.eval().zero_grad()  # nothing is dropped
    loss = model(torch.tensor(ONE), torch.tensor(ONE)).loss
    assert loss is not None
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_a_model_that_is_prepared_can_be_trained(model: Model, made: Made) -> None:
    with prepared(model):
        found = _gradients(model)
        assert not made.products
    expected = _gradients(model)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_prepared_is_refused(model: Model, made: Made) -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"), prepared(model, 0):
        pass
    with pytest.raises(ValueError, match="int8: one text at a time"), prepared(model, 2, int8=True):
        pass
    with prepared(model), pytest.raises(ValueError, match="prepared already"), prepared(model):
        pass
    steps = model.stream(ONE, max_new_tokens=copies.PAYS // 2, int8=True)
    next(steps)
    next(steps)
    with pytest.raises(ValueError, match="while the model generates"), prepared(model):
        pass
    steps.close()
    with pytest.raises(KeyError), prepared(model, 2):
        raise KeyError
    with (
        prepared(model, int8=True),  # nothing was left behind
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match="int8: autocast"),
    ):
        generate(model, ONE, max_new_tokens=2, int8=True)
