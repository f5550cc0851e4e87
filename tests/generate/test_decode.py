"""The decode loop says what full forward passes would, row by row, and leaves the model as it was."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry import core
from transformer_kit.generate import generate, stream
from transformer_kit.generate.decode import Settings
from transformer_kit.generate.given import Sampling
from transformer_kit.model.build import build
from transformer_kit.model.model import Model

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7], [1, 8, 2, 8, 1]]


@torch.no_grad()
def by_full_passes(model: Model, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding with no state: the whole text through the model for each token."""
    model.eval()
    text = list(prompt)
    for _ in range(count):
        text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned", "rope", "alibi"])
@pytest.mark.parametrize("window", [None, 3])
def test_rows_of_a_batch_equal_full_passes_alone(make: Callable[..., Model], position: str, window: int | None) -> None:
    model = make(position, window)
    alone = [by_full_passes(model, prompt, 9) for prompt in PROMPTS]
    assert len({tuple(row) for row in alone}) == 3
    assert generate(model, PROMPTS, max_new_tokens=9) == alone
    assert [generate(model, [prompt], max_new_tokens=9)[0] for prompt in PROMPTS] == alone


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
@pytest.mark.parametrize("window", [None, 3])
def test_prompts_read_in_chunks_mean_the_same(make: Callable[..., Model], chunk: int, window: int | None) -> None:
    model = make("rope", window)
    assert generate(model, PROMPTS, max_new_tokens=9, chunk=chunk) == generate(model, PROMPTS, max_new_tokens=9)


def test_a_text_may_fill_the_model_to_the_last_token(model: Model) -> None:
    assert len(generate(model, [[1]], max_new_tokens=31)[0]) == 31


def test_a_seed_repeats_and_another_differs(model: Model) -> None:
    def sampled(seed: int | None) -> list[list[int]]:
        return generate(model, PROMPTS, max_new_tokens=12, samplers=["temperature"], seed=seed)

    assert sampled(7) == sampled(7) != sampled(8)
    assert sampled(2**64 - 1) != sampled(0)
    torch.manual_seed(3)
    first, second = sampled(None), sampled(None)
    assert first != second
    torch.manual_seed(3)
    assert sampled(None) == first


def test_a_row_is_drawn_without_regard_to_the_others_or_to_how_long_they_go_on(model: Model) -> None:
    def sampled(prompts: list[list[int]], count: int = 12) -> list[list[int]]:
        return generate(model, prompts, max_new_tokens=count, samplers=["temperature"], seed=5)

    batch = sampled(PROMPTS)
    assert sampled(PROMPTS[:1]) == batch[:1]
    assert sampled([PROMPTS[0], [9] * 12, PROMPTS[2]])[::2] == batch[::2]
    assert [row[:12] for row in sampled(PROMPTS, 20)] == batch
    twins = sampled([PROMPTS[0], PROMPTS[0]])
    assert twins[0] != twins[1]


def test_global_random_numbers_are_not_touched_with_a_seed(model: Model) -> None:
    before = torch.get_rng_state()
    generate(model, PROMPTS, max_new_tokens=4, samplers=["temperature"], seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_samplers_work_in_their_order_and_in_every_spelling(model: Model) -> None:
    def sampled(*samplers: Any) -> list[list[int]]:
        return generate(model, PROMPTS, max_new_tokens=9, samplers=samplers, seed=2)

    greedy = generate(model, PROMPTS, max_new_tokens=9)
    assert sampled("greedy") == greedy == sampled({"type": "temperature", "value": 900.0}, {"type": "top_k", "k": 1})
    hot = sampled({"type": "temperature", "value": 900.0})
    assert hot != sampled("temperature") != greedy


def test_each_row_ends_at_its_own_stop_token_which_is_not_part_of_it(model: Model) -> None:
    free = generate(model, PROMPTS, max_new_tokens=12)
    stop = [free[0][6], free[1][3]]
    ended = generate(model, PROMPTS, max_new_tokens=12, stop=stop)
    for row, whole in zip(ended, free, strict=True):
        cut = next((i for i, token in enumerate(whole) if token in stop), len(whole))
        assert row == whole[:cut]
    assert len({len(row) for row in ended}) > 1


def test_nothing_is_computed_after_the_last_row_has_ended(model: Model) -> None:
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    (row,) = generate(model, [PROMPTS[0]], max_new_tokens=12)
    assert len(passes) == 12
    passes.clear()
    first = row.index(row[5])
    assert generate(model, [PROMPTS[0]], max_new_tokens=12, stop=[row[5]]) == [row[:first]]
    assert len(passes) == first + 1


def test_a_stream_gives_each_step_and_none_for_rows_that_have_ended(model: Model) -> None:
    free = generate(model, PROMPTS, max_new_tokens=6)
    assert list(stream(model, PROMPTS, max_new_tokens=6)) == [list(step) for step in zip(*free, strict=True)]
    stop = [free[0][0]]
    steps = list(stream(model, PROMPTS, max_new_tokens=6, stop=stop))
    assert {step[0] for step in steps} == {None}
    rows = [[t for t in row if t is not None] for row in zip(*steps, strict=True)]
    assert rows == generate(model, PROMPTS, max_new_tokens=6, stop=stop)


def test_the_caller_may_compute_gradients_between_steps(model: Model) -> None:
    for _ in stream(model, PROMPTS, max_new_tokens=3):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    model(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_modules_return_to_the_mode_they_had(model: Model) -> None:
    model.train()
    model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    assert len(set(modes)) == 2
    seen: list[bool] = []
    handle = model.register_forward_hook(lambda *_: seen.append(any(m.training for m in model.modules())))
    generate(model, PROMPTS, max_new_tokens=2)
    assert seen == [False, False]
    assert [m.training for m in model.modules()] == modes
    steps = stream(model, PROMPTS, max_new_tokens=5)
    next(steps)
    steps.close()
    assert [m.training for m in model.modules()] == modes
    handle.remove()
    model.register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyError("broken")))
    with pytest.raises(KeyError):
        generate(model, PROMPTS, max_new_tokens=2)
    assert [m.training for m in model.modules()] == modes


def test_ids_beyond_the_vocabulary_in_use_are_not_chosen(model: Model) -> None:
    free = generate(model, PROMPTS, max_new_tokens=12)
    assert max(map(max, free)) >= 10
    assert max(map(max, generate(model, PROMPTS, max_new_tokens=12, vocab=10))) < 10
    sampled = generate(model, PROMPTS, max_new_tokens=12, vocab=10, samplers=["temperature"], seed=0)
    assert max(map(max, sampled)) < 10


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([], {}, "at least one list of token ids, got []"),
        ("text", {}, "prompts must be token ids, got text 'text'; `generate_text` takes text"),
        ([1, 2], {}, "prompts must be lists of token ids, got [1, 2]; put a single prompt in brackets"),
        (torch.tensor([1, 2]), {}, "put a single prompt in brackets"),
        (torch.ones(1, 2), {}, "token ids must be from 0 to 39 (vocab_size - 1), got 1.0"),
        (["text"], {}, "the prompt must be token ids, got text 'text'; `generate_text` takes text"),
        ([None], {}, "the prompt must be a list of token ids, got None"),
        (None, {}, "prompts must be a list with at least one list of token ids, got None"),
        ([[]], {}, "the prompt is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [40]], {}, "prompt 1: token ids must be from 0 to 39 (vocab_size - 1), got 40"),
        ([[-1]], {}, "got -1"),
        ([[1.0]], {}, "got 1.0"),
        ([[True]], {}, "got True"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be a whole number, at least 1; got 0"),
        ([[1]], {"max_new_tokens": 2.0}, "got 2.0"),
        ([[1]], {"max_new_tokens": True}, "got True"),
        ([[1]], {"seed": 2**64}, "seed must be a whole number from 0 to 2^64 - 1, got 18446744073709551616"),
        ([[1]], {"seed": -1}, "got -1"),
        ([[1]], {"seed": True}, "got True"),
        ([[1]], {"seed": 1.5}, "got 1.5"),
        ([[1]], {"stop": 3}, "stop must be a list of token ids, got 3"),
        ([[1]], {"stop": [40]}, "stop: token ids must be from 0 to 39"),
        ([[1]], {"vocab": 0}, "vocab must be a whole number, at least 1, got 0"),
        ([[1]], {"chunk": "a"}, "chunk must be a whole number, at least 1, got 'a'"),
        ([[1]], {"temperature": -1.0}, "temperature: value: "),
        ([[1]], {"top_k": 2.5}, "top_k: k: "),
        ([[1]], {"top_p": "a"}, "top_p: p: "),
        ([[1]], {"temperature": 0.8, "samplers": ["greedy"]}, "give `samplers` or temperature, not both"),
        ([[1]], {"samplers": "greedy"}, "samplers must be a list, got 'greedy'"),
        ([[1]], {"samplers": ["greedi"]}, "samplers[0]: no sampler 'greedi'; did you mean 'greedy'?"),
        ([[1]], {"samplers": ["greedy", {"type": "top_k", "k": 0}]}, "samplers[1].k: "),
        ([[1]], {"samplers": [{"type": "temperature", "value": -1.0}]}, "samplers[0].value: "),
        ([[1]], {"samplers": [5]}, "samplers[0]: must be the name of a sampler"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_pass(
    model: Model, prompts: Any, settings: dict[str, Any], message: str
) -> None:
    model.register_forward_hook(lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        stream(model, prompts, **{"max_new_tokens": 2, **settings})
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="meta device has no weights"):
        generate(build(model.spec, device="meta"), [[1]], max_new_tokens=1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_numbers_are_named_as_the_cause(model: Model, value: float) -> None:
    model.embedding.weight.data[7] = value
    with pytest.raises(ValueError, match="logits for prompt 1 are not numbers"):
        generate(model, [[1, 2], [3, 7]], max_new_tokens=4, samplers=["top_p"], seed=0)


def test_prompts_may_be_tensors_and_arrays(model: Model) -> None:
    rows = [[1, 2, 3], [4, 5, 6]]
    expected = model.generate(rows, max_new_tokens=4)
    array = torch.tensor(rows).numpy()
    for prompts in (
        torch.tensor(rows),
        torch.tensor(rows, dtype=torch.int32),
        array,
        list(array),
        tuple(map(tuple, rows)),
    ):
        assert model.generate(prompts, max_new_tokens=4) == expected
    assert model.generate([torch.tensor([1]), torch.tensor(rows[0])], max_new_tokens=4)[1] == expected[0]


def test_samplers_may_be_keywords_in_any_order(model: Model) -> None:
    listed = [{"type": "temperature", "value": 2.0}, {"type": "top_k", "k": 5}, {"type": "top_p", "p": 0.9}]
    expected = model.generate(PROMPTS, max_new_tokens=8, samplers=listed, seed=3)
    assert model.generate(PROMPTS, max_new_tokens=8, top_p=0.9, top_k=5, temperature=2, seed=3) == expected
    plain = model.generate(PROMPTS, max_new_tokens=8)
    assert expected != plain
    assert model.generate(PROMPTS, max_new_tokens=8, temperature=0) == plain
    assert model.generate(PROMPTS, max_new_tokens=8, temperature=None) == plain
    whole = model.generate(PROMPTS, max_new_tokens=8, samplers=["temperature"], seed=3)
    assert model.generate(PROMPTS, max_new_tokens=8, top_k=0, seed=3) == whole


@pytest.mark.parametrize(
    ("word", "meant"), [("do_sample", "samplers"), ("eos_token_id", "stop"), ("temprature", "temp")]
)
def test_unknown_settings_are_named(model: Model, word: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"generation has no setting '{word}'; did you mean '{meant}"):
        model.generate(PROMPTS, max_new_tokens=1, **{word: 1})


def test_every_setting_of_stream_is_one_of_generate() -> None:
    known = inspect.signature(stream).parameters.values()
    keywords = {p.name for p in known if p.kind is p.KEYWORD_ONLY} | set(Sampling.__annotations__)
    assert set(Settings.__annotations__) == keywords
    assert set(Sampling.__annotations__) <= set(core.names("sampler"))
