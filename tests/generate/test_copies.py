"""Copies of weights: made for a generation that is long enough, or once for many."""

import pytest
import torch
from torch import Tensor, nn

from transformer_kit.generate import copies, generate, prepared, stream
from transformer_kit.generate.layouts import Packed, Packer
from transformer_kit.model.model import Model

ONE, TWO = [[1, 2, 3]], [[1, 2, 3], [4, 5]]


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


@pytest.mark.parametrize(("prompts", "tokens", "copied"), [(ONE, 7, 0), (ONE, 8, 1), (TWO, 3, 0), (TWO, 4, 1)])
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


def test_eight_bits_are_prepared_as_well(model: Model, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "eight_bits", made.pack)
    with prepared(model, int8=True):
        generate(model, ONE, max_new_tokens=4)
        assert not made.products
        generate(model, ONE, max_new_tokens=4, int8=True)
        assert made.products


def test_a_weight_that_changes_in_between_counts(model: Model, made: Made) -> None:
    with prepared(model):
        before = generate(model, ONE, max_new_tokens=6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-1.5)
        after = generate(model, ONE, max_new_tokens=6)
    assert generate(model, ONE, max_new_tokens=6) == after != before


def test_steps_that_go_on_afterwards_keep_what_was_prepared(model: Model, made: Made) -> None:
    expected = list(stream(model, ONE, max_new_tokens=6))
    with prepared(model):
        begun, later = stream(model, ONE, max_new_tokens=6), stream(model, ONE, max_new_tokens=6)
        found = [next(begun)]
    assert [*found, *begun] == expected
    assert made.products
    assert not _changed(model)
    assert list(later) == expected
    assert not _changed(model)


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


def test_what_cannot_be_prepared_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"), prepared(model, 0):
        pass
    with pytest.raises(ValueError, match="int8: one text at a time"), prepared(model, 2, int8=True):
        pass
    with prepared(model), pytest.raises(ValueError, match="prepared already"), prepared(model):
        pass
    with prepared(model, 2):  # and nothing was left behind
        pass
