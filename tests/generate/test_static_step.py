"""Steps of static shapes choose what plain ones do; those that cannot be captured are known."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from transformer_kit import Spec, build, prepare_for_inference
from transformer_kit.generate import cuda_graph, generate
from transformer_kit.generate.choose import Picker, built, uniforms
from transformer_kit.generate.cuda_graph import FIRST, can_be_captured, captured, more
from transformer_kit.generate.prompts import padded
from transformer_kit.generate.static_step import StaticStep
from transformer_kit.model.model import Model
from transformer_kit.transform.static_cache import StaticState

NEW = 20
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("samplers", [[], ["temperature", {"type": "top_p", "p": 0.8}]])
def test_steps_of_static_shapes_choose_what_plain_ones_do(
    make: Callable[..., Model], window: int | None, samplers: list[Any]
) -> None:
    model = make(window=window).eval()
    expected = generate(model, PROMPTS, max_new_tokens=NEW, samplers=samplers, seed=3)
    picked = Picker(built(samplers), 40)
    draws, (tokens, segments) = uniforms(3, 2, NEW), padded(PROMPTS, torch.device("cpu"))
    with torch.inference_mode():
        state = model.state(2, tokens.shape[1] + NEW - 1)
        logits = model(tokens, segments=segments, state=state, last=True).logits[:, -1]
        chosen = picked(logits, draws[:, 0])
        step = StaticStep(model, state, picked, draws, chosen)
        step.widen(NEW)
        found = [chosen[0]]
        for _ in range(NEW - 1):
            step.next()  # twice is once
            step.advance(step.next())
            step.count()
            found.append(step.chosen[0].clone())
    assert torch.stack(found, dim=1).tolist() == expected


MLA = {
    "type": "mla",
    "n_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
}


@pytest.mark.parametrize(
    "mixer", [{"type": "attention", "n_heads": 4}, {"type": "attention", "n_heads": 4, "window": 6}, MLA]
)
def test_a_layer_is_compiled_once_for_all_steps(mixer: dict[str, Any]) -> None:
    block = {"type": "pre_norm", "mixer": mixer, "ffn": "gated"}
    page = {"vocab_size": 40, "d_model": 32, "max_seq_len": 32, "position": "rope"}
    model = build(Spec.of({"model": {**page, "layers": {"count": 2, "block": block}}})).eval()
    ids, graphs = torch.arange(20)[None], list[object]()

    def kept(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with torch.no_grad():
        expected, state = model(ids).logits, model.state(1, 20)
        model(ids[:, :3], state=state)
        static = StaticState(state, 16)
        for layer in model.layers:
            layer.compile(backend=kept, fullgraph=True, dynamic=False)
        for t in range(3, 16):
            found = model(ids[:, t : t + 1], state=static).logits
            torch.testing.assert_close(found, expected[:, t : t + 1], rtol=1e-4, atol=1e-5)
            static.cache_position += 1
            static.length += 1
    torch.compiler.reset()
    assert len(graphs) == len(model.layers)


def test_room_is_for_more_tokens_and_never_for_more_than_the_state_has(model: Model) -> None:
    state = model.state(1)
    step = StaticStep(model, state, Picker([], 40), torch.zeros(1, 9), torch.zeros(2, 1))
    for _ in range(5):
        step.count()
    step.widen(10)
    assert (step.state.max_length, step.is_full) == (15, False)
    for _ in range(10):
        step.count()
    assert step.is_full
    step.widen(100)
    assert step.state.max_length == state.max_length


def test_on_a_gpu_room_is_for_twice_what_there_is() -> None:
    assert [seen + more(seen) for seen in (1, FIRST - 1, FIRST, 3 * FIRST)] == [
        FIRST,
        2 * FIRST - 2,
        2 * FIRST,
        6 * FIRST,
    ]


def test_what_a_static_state_cannot_take_in_is_refused(model: Model) -> None:
    static = StaticState(model.state(1), 8)
    with pytest.raises(ValueError, match=r"one token of each of its 1 rows.*got tokens \(1, 2\)"):
        model(torch.tensor([[1, 2]]), state=static)


def test_positions_scaled_by_the_current_length_cannot_be_captured(model: Model) -> None:
    page = {"type": "rope", "scaling": {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 16}}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": "mlp"}
    scaled = {
        "vocab_size": 40,
        "d_model": 32,
        "max_seq_len": 32,
        "position": page,
        "layers": {"count": 1, "block": block},
    }
    other = build(Spec.of({"model": scaled}))
    assert can_be_captured(model, model.state(1))
    assert not can_be_captured(other, other.state(1))


def test_a_state_without_a_static_form_cannot_be_captured(model: Model) -> None:
    state = model.state(1)
    state.layers[1] = object()
    assert not can_be_captured(model, state)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_model_with_hooks_cannot_be_captured(model: Model, hook: str) -> None:
    handle = getattr(model.layers[0], hook)(lambda *_: None)
    assert not can_be_captured(model, model.state(1))
    handle.remove()
    assert can_be_captured(model, model.state(1))


def test_compiling_is_refused_on_a_cpu(model: Model) -> None:
    with pytest.raises(ValueError, match="compile: only steps on a GPU"):
        generate(model, [[1]], max_new_tokens=2, compile=True)


def test_a_default_device_changes_neither_weights_nor_choices(make: Callable[..., Model], model: Model) -> None:
    expected = generate(model, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1)
    with torch.device("meta"):
        other = make()
        assert other.embedding.weight.device.type == "cpu"
        assert uniforms(1, 2, 3).device.type == "cpu"
    assert generate(other, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1) == expected


def test_only_what_is_prepared_or_compiled_is_captured(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose behavior changes from step to step is not replayed as it was once."""
    made: list[bool] = []
    monkeypatch.setattr(cuda_graph, "CUDAGraph", lambda step, compile: made.append(compile) or Mock(obstacle=None))
    monkeypatch.setattr(cuda_graph, "StaticStep", Mock())
    state, draws, on_a_gpu = model.state(1), torch.empty(1, 100), Mock(is_cuda=True)
    assert captured(model, state, Mock(), draws, on_a_gpu) is None
    assert captured(model, state, Mock(), draws, on_a_gpu, compile=True) is not None
    prepared = prepare_for_inference(model)
    assert captured(prepared, prepared.state(1), Mock(), draws, on_a_gpu) is not None
    assert made == [True, False]
