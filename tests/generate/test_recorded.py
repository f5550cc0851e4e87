"""Recorded steps choose what plain ones do; where steps cannot be recorded, the plain ones are done."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from registry.contracts import Sampler
from transformer_kit import Spec, build
from transformer_kit.generate import copies, decode, generate, recorded, repeated
from transformer_kit.generate.choose import Picker, built, uniforms
from transformer_kit.generate.fast import Laid
from transformer_kit.generate.fixed import Fixed, fixable
from transformer_kit.generate.graph import FIRST, more
from transformer_kit.generate.prompts import padded
from transformer_kit.generate.repeated import Repeated
from transformer_kit.generate.static_cache import StaticState
from transformer_kit.generate.tape import Program
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
    picked = Picker(built(samplers), 40)
    draws, (tokens, segments) = uniforms(3, 2, NEW), padded(PROMPTS, torch.device("cpu"))
    with torch.inference_mode():
        state = model.state(2, tokens.shape[1] + NEW - 1)
        logits = model(tokens, segments=segments, state=state, last=True).logits[:, -1]
        chosen = picked(logits, draws[:, 0])
        fixed = Fixed(model, state, picked, draws, chosen)
        fixed.widen(NEW)
        found = [chosen[0]]
        for _ in range(NEW - 1):
            fixed.step()  # twice is once
            fixed.move(fixed.step())
            fixed.count()
            found.append(fixed.chosen[0].clone())
    assert torch.stack(found, dim=1).tolist() == expected


def test_room_is_for_more_tokens_and_never_for_more_than_the_state_has(model: Model) -> None:
    state = model.state(1)
    fixed = Fixed(model, state, Picker([], 40), torch.zeros(1, 9), torch.zeros(2, 1))
    for _ in range(5):
        fixed.count()
    fixed.widen(10)
    assert (fixed.state.max_length, fixed.full) == (15, False)
    for _ in range(10):
        fixed.count()
    assert fixed.full
    fixed.widen(100)
    assert fixed.state.max_length == state.max_length


def test_on_a_gpu_room_is_for_twice_what_there_is() -> None:
    assert [seen + more(seen) for seen in (1, FIRST - 1, FIRST, 3 * FIRST)] == [
        FIRST,
        2 * FIRST - 2,
        2 * FIRST,
        6 * FIRST,
    ]


def test_what_a_fixed_state_cannot_take_in_is_refused(model: Model) -> None:
    static = StaticState(model.state(1), 8)
    with pytest.raises(ValueError, match=r"one token of each of its 1 rows.*got tokens \(1, 2\)"):
        model(torch.tensor([[1, 2]]), state=static)


def test_positions_scaled_by_the_current_length_are_not_fixable(model: Model) -> None:
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
    assert fixable(model, model.state(1))
    assert not fixable(other, other.state(1))


def test_a_state_that_does_not_know_fixed_steps_is_not_fixed(model: Model) -> None:
    state = model.state(1)
    state.layers[1] = object()
    assert not fixable(model, state)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_model_that_is_listened_to_is_not_fixable(model: Model, hook: str) -> None:
    handle = getattr(model.layers[0], hook)(lambda *_: None)
    assert not fixable(model, model.state(1))
    handle.remove()
    assert fixable(model, model.state(1))


def test_compiling_is_refused_on_a_processor(model: Model) -> None:
    with pytest.raises(ValueError, match="compile: only steps on a GPU"):
        generate(model, [[1]], max_new_tokens=2, compile=True)


class Notes:
    """What was repeated: programs that were made, and how often one was run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Program] = []
        self.runs = 0
        plain = Program.__call__

        def run(program: Program) -> Any:
            self.made += [] if program in self.made else [program]
            self.runs += 1
            return plain(program)

        monkeypatch.setattr(Program, "__call__", run)
        monkeypatch.setattr(repeated, "ROOM", 8)
        monkeypatch.setitem(recorded.LEAST, "cpu", 1)
        monkeypatch.setattr(copies, "PAYS", 1)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    return Notes(monkeypatch)


def _plainly(
    monkeypatch: pytest.MonkeyPatch, model: Model, prompts: list[list[int]], **settings: Any
) -> list[list[int]]:
    with monkeypatch.context() as patched:
        patched.setattr(decode, "recorded", lambda *_: None)
        return generate(model, prompts, **settings)


@pytest.mark.parametrize("window", [None, 6, 20])
@pytest.mark.parametrize("position", ["rope", "learned", "alibi"])
@pytest.mark.parametrize("prompts", [[[1, 2, 3]], PROMPTS])
@pytest.mark.parametrize("samplers", [[], ["temperature", {"type": "top_p", "p": 0.8}]])
def test_repeated_steps_write_what_plain_ones_do(
    make: Callable[..., Model],
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    window: int | None,
    position: str,
    prompts: list[list[int]],
    samplers: list[Any],
) -> None:
    """Rooms for 8 tokens are outgrown on the way, before and after a ring turns: two steps of each are noted."""
    model = make(position, window=window)
    settings: dict[str, Any] = {"max_new_tokens": NEW, "samplers": samplers, "seed": 3}
    expected = _plainly(monkeypatch, model, prompts, **settings)
    assert not notes.runs
    assert generate(model, prompts, **settings) == expected
    assert (len(notes.made), notes.runs) == (3, NEW - 1 - 3 * 2)


def test_eight_bits_are_repeated_as_well(model: Model, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _plainly(monkeypatch, model, [[1, 2, 3]], max_new_tokens=NEW, int8=True)
    assert generate(model, [[1, 2, 3]], max_new_tokens=NEW, int8=True) == expected
    assert notes.runs


class FirstOnes:
    """Holds back what is above 9 in its first steps."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, logits: Tensor) -> Tensor:
        self.count += 1
        return logits if self.count > NEW // 2 else logits[:, :10]


class Patient(FirstOnes, Sampler):
    def __init__(self) -> None:
        FirstOnes.__init__(self)


def test_samplers_are_asked_at_every_step(model: Model, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _plainly(monkeypatch, model, [[1, 2, 3]], max_new_tokens=NEW, samplers=[Patient()], seed=1)
    assert max(expected[0]) > 9 >= max(expected[0][: NEW // 2])
    assert generate(model, [[1, 2, 3]], max_new_tokens=NEW, samplers=[Patient()], seed=1) == expected
    assert notes.runs


@pytest.mark.parametrize("prompts", [[[1, 2, 3]], PROMPTS])
def test_autocast_on_the_way_is_heeded(model: Model, notes: Notes, prompts: list[list[int]]) -> None:
    steps = model.stream(prompts, max_new_tokens=NEW)
    for _ in range(8):
        next(steps)
    runs = notes.runs
    with torch.autocast("cpu", torch.bfloat16):
        next(steps)
    assert len(list(steps)) == NEW - 9
    assert notes.runs == runs > 0


def test_streams_in_turns_do_not_disturb_each_other(model: Model, notes: Notes) -> None:
    expected = [generate(model, prompts, max_new_tokens=NEW) for prompts in ([[1, 2, 3]], PROMPTS)]
    runs = notes.runs
    both = zip(model.stream([[1, 2, 3]], max_new_tokens=NEW), model.stream(PROMPTS, max_new_tokens=NEW), strict=True)
    found = [list(map(list, zip(*steps, strict=True))) for steps in zip(*both, strict=True)]
    assert found == expected
    assert notes.runs == 2 * runs


def test_few_tokens_are_not_worth_a_program(model: Model, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recorded.LEAST, "cpu", NEW)
    generate(model, [[1]], max_new_tokens=NEW - 1)
    assert not notes.runs
    generate(model, [[1]], max_new_tokens=NEW)
    assert notes.runs


def _swap(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() * -2)


@torch.no_grad()
def _write(layer: nn.Linear) -> None:
    layer.weight.mul_(-2)


@pytest.mark.parametrize("change", [_swap, _write])
@pytest.mark.parametrize("place", ["layers.0.ffn.up", "layers.1.mixer_norm", "layers.1.mixer.k", "norm"])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_weight_that_changes_on_the_way_counts_from_then_on(
    model: Model, notes: Notes, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], place: str, at: int
) -> None:
    def written() -> list[Any]:
        before, found = {name: p.clone() for name, p in model.named_parameters()}, []
        for step, tokens in enumerate(decode.stream(model, [[1, 2, 3]], max_new_tokens=NEW)):
            found.append(tokens)
            if step == at:
                change(model.get_submodule(place))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(decode, "recorded", lambda *_: None)
        expected = written()
    assert written() == expected


class Reading(nn.Module):
    """Looks at a number, and does something else when it is large."""

    def forward(self, x: Tensor) -> Tensor:
        return -x if x.amax() > 1 else x


class Counting(nn.Module):
    """Does something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


@pytest.mark.parametrize("kind", [Reading, Counting])
def test_what_python_decides_anew_at_each_step_is_not_repeated(
    model: Model, notes: Notes, monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module]
) -> None:
    found = []
    for plainly in (True, False):
        model.layers[1].ffn.activation = kind()
        writes = _plainly if plainly else (lambda _, *given, **settings: generate(*given, **settings))
        found.append(writes(monkeypatch, model, [[1, 2, 3]], max_new_tokens=NEW))
    assert found[0] == found[1]
    assert not notes.runs


def test_hooks_are_called_at_every_step(model: Model, notes: Notes) -> None:
    seen: list[int] = []
    model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    generate(model, [[1, 2, 3]], max_new_tokens=NEW)
    assert (len(seen), notes.runs) == (NEW, 0)


def test_a_model_that_someone_compiled_is_not_recorded_on_a_processor(model: Model, notes: Notes) -> None:
    given = (model, model.state(1), Picker([], 40), torch.zeros(1, NEW), torch.ones(2, 1, dtype=torch.long))
    laid = Laid(model, None, 1)
    assert isinstance(recorded.recorded(*given, laid), Repeated)
    model.layers[0].compile(backend="eager")
    assert recorded.recorded(*given, laid) is None


def test_experts_are_not_repeated(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    ffn = {"type": "moe", "n_experts": 4, "router": {"type": "softmax", "top_k": 2}, "expert": "gated"}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": ffn}
    page = {"vocab_size": 40, "d_model": 32, "max_seq_len": 64, "position": "rope"}
    model = build(Spec.of({"model": {**page, "layers": {"count": 2, "block": block}}}))
    expected = _plainly(monkeypatch, model, PROMPTS, max_new_tokens=NEW)
    assert generate(model, PROMPTS, max_new_tokens=NEW) == expected
    assert not notes.runs


def test_unusable_logits_are_named_in_repeated_steps_as_well(model: Model, notes: Notes) -> None:
    steps = model.stream([[1, 2, 3]], max_new_tokens=NEW)
    for _ in range(6):
        next(steps)
    assert notes.runs
    with torch.no_grad():
        model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="prompt 0 are not numbers"):
        next(steps)


def test_a_state_that_is_given_up_goes_on_as_if_it_had_never_been_fixed(model: Model) -> None:
    state = model.eval().state(1, 20)
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 2, 3]]), state=state, last=True).logits[:, -1]
        picked = Picker([], 40)
        fixed = Fixed(model, state, picked, torch.zeros(1, 20), picked(logits, torch.zeros(1)))
        steps = Repeated(fixed, Laid(model, None, 1))
        assert steps() is not None
        model.norm.weight = nn.Parameter(model.norm.weight.clone())
        assert steps() is None
    assert state.length == 4


@pytest.mark.parametrize("samplers", [[], ["temperature"]])
def test_what_was_chosen_stays_when_the_next_is(model: Model, samplers: list[Any]) -> None:
    state = model.eval().state(1, 20)
    with torch.inference_mode():
        logits = model(torch.tensor([[1, 2, 3]]), state=state, last=True).logits[:, -1]
        picked = Picker(built(samplers), 40)
        draws = torch.full((1, 20), 0.5, dtype=torch.float64)
        steps = Repeated(Fixed(model, state, picked, draws, picked(logits, draws[:, 0])), Laid(model, None, 1))
        found = [steps() for _ in range(5)]
    assert len({one.data_ptr() for one in found if one is not None}) == 5


def test_a_default_device_changes_neither_weights_nor_choices(make: Callable[..., Model], model: Model) -> None:
    expected = generate(model, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1)
    with torch.device("meta"):
        other = make()
        assert other.embedding.weight.device.type == "cpu"
        assert uniforms(1, 2, 3).device.type == "cpu"
    assert generate(other, [[1, 2]], max_new_tokens=4, samplers=["temperature"], seed=1) == expected
