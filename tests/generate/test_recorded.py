"""Steps of fixed shapes choose what plain ones do; where they cannot be made, nothing is recorded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer_kit import Spec, build
from transformer_kit.generate import generate
from transformer_kit.generate.choose import built, picker, uniforms
from transformer_kit.generate.prompts import padded
from transformer_kit.generate.recorded import FIRST, Fixed, fixable, recorded
from transformer_kit.model.model import Model

NEW = 20
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("samplers", [[], ["temperature", {"type": "top_p", "p": 0.8}]])
def test_steps_of_fixed_shapes_choose_what_plain_ones_do(
    make: Callable[..., Model], window: int | None, samplers: list[Any]
) -> None:
    model = make(window=window).eval()
    expected = generate(model, PROMPTS, max_new_tokens=NEW, samplers=samplers, seed=3)
    picked = picker(built(samplers), 40)
    draws, (tokens, segments) = uniforms(3, 2, NEW), padded(PROMPTS, torch.device("cpu"))
    with torch.inference_mode():
        state = model.state(2, tokens.shape[1] + NEW - 1)
        logits = model(tokens, segments=segments, state=state, last=True).logits[:, -1]
        chosen = picked(logits, draws[:, 0])
        fixed = Fixed(model, state, picked, draws, chosen)
        fixed.widen()
        found = [chosen[0]]
        for _ in range(NEW - 1):
            fixed.step()  # twice is once
            fixed.move(fixed.step())
            state.seen += 1
            found.append(fixed.chosen[0].clone())
    assert torch.stack(found, dim=1).tolist() == expected


def test_room_is_for_twice_what_there_is_and_no_more_than_the_state_has(make: Callable[..., Model]) -> None:
    model = make(max_seq_len=4 * FIRST)
    state = model.state(1)
    fixed = Fixed(model, state, lambda logits, draw: logits, torch.zeros(1, 9), torch.zeros(2, 1))
    rooms = []
    for state.seen in (1, FIRST - 1, FIRST, 3 * FIRST):
        fixed.widen()
        rooms.append(state.reach)
    assert rooms == [FIRST, 2 * FIRST - 2, 2 * FIRST, 4 * FIRST]


def test_what_a_fixed_state_cannot_take_in_is_refused(model: Model) -> None:
    state = model.state(1)
    state.fix(torch.tensor([0]), 8)
    with pytest.raises(ValueError, match="one token at a time"):
        model(torch.tensor([[1, 2]]), state=state)


def test_positions_scaled_by_the_current_length_are_not_fixable(model: Model) -> None:
    page = {"type": "rope", "scaling": {"type": "dynamic", "factor": 2.0, "original": 16}}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": "mlp"}
    scaled = {
        "vocab_size": 40,
        "d_model": 32,
        "max_seq_len": 32,
        "position": page,
        "layers": {"count": 1, "block": block},
    }
    other = build(Spec.of({"model": scaled}))
    assert fixable(model, model.state(1))
    assert not fixable(other, other.state(1))


def test_a_state_that_does_not_know_fixed_steps_is_not_fixed(model: Model) -> None:
    state = model.state(1)
    state.layers[1] = object()
    assert not fixable(model, state)


def test_nothing_is_recorded_on_a_processor_and_compiling_is_refused(model: Model) -> None:
    chosen = torch.zeros(2, 1, dtype=torch.long)
    given = (model, model.state(1), lambda logits, draw: logits, torch.zeros(1, 99), chosen)
    assert recorded(*given) is None
    with pytest.raises(ValueError, match="compile: only steps on a GPU"):
        generate(model, [[1]], max_new_tokens=2, compile=True)


def test_a_default_device_changes_neither_weights_nor_choices(make: Callable[..., Model], model: Model) -> None:
    expected = generate(model, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1)
    with torch.device("meta"):
        other = make()
        assert other.embedding.weight.device.type == "cpu"
        assert uniforms(1, 2, 3).device.type == "cpu"
    assert generate(other, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1) == expected
