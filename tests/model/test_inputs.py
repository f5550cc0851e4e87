"""What a model is given by mistake: one clear error each, never an exception of torch's, never a NaN."""

from collections.abc import Callable

import pytest
import torch

from registry.state import DecodeState
from transformer_kit import Model, Spec, build
from transformer_kit.model.loss import IGNORE

TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def tiny(position: str) -> Model:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    sizes = {"vocab_size": 7, "d_model": 8, "max_seq_len": 4, "position": position}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 1, "block": block}}})).eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("learned")


def _held(model: Model) -> DecodeState:
    """A state with two tokens of each row, in segments 0 and 1."""
    state = model.state(2)
    model(TOKENS[:, :2], segments=torch.tensor([[0, 1], [0, 1]]), state=state)
    return state


WRONG: dict[str, tuple[Callable[[Model], object], str]] = {
    "one row without its batch": (lambda m: m(TOKENS[0]), r"tokens must be \(B, T\), .* got \(3,\)"),
    "a list": (lambda m: m([[1, 2]]), r"tokens must be a tensor of ids \(B, T\), got list \[\[1, 2\]\]"),
    "text": (lambda m: m("abc"), "got str 'abc'"),
    "a state of no rows": (lambda m: m.state(0), "batch must be a whole number, at least 1, got 0"),
    "a number": (lambda m: m(torch.tensor(1)), r"got \(\)"),
    "no token": (lambda m: m(TOKENS[:, :0]), r"with one at least, got \(2, 0\)"),
    "no row": (lambda m: m(TOKENS[:0]), r"with one at least, got \(0, 3\)"),
    "vectors": (lambda m: m(TOKENS.float()), "must be ids, int64 or int32, got float32"),
    "truths": (lambda m: m(TOKENS > 2), "got bool"),
    "an id too large": (lambda m: m(TOKENS + 1), r"token ids must be from 0 to 6 \(vocab_size - 1\), got 7"),
    "an id below 0": (lambda m: m(TOKENS - 2), "token ids must be .* got -1"),
    "more than it takes": (lambda m: m(TOKENS.repeat(1, 2)), r"at most max_seq_len \(4\) tokens, where .* got 6"),
    "more than it takes, in pieces": (lambda m: _twice(m), "at most max_seq_len .* 'learned' ends, got 6"),
    "a segment that comes back": (
        lambda m: m(TOKENS, segments=torch.tensor([[0, 1, 0], [0, 0, 0]])),
        r"each segment must be one run of tokens, got \[0, 1, 0\]",
    ),
    "a segment that comes back in a later pass": (
        lambda m: m(TOKENS[:, :1], segments=TOKENS[:, :1] * 0, state=_held(m)),
        r"each segment must be one run of tokens, got \[0, 1, 0\]",
    ),
    "segments below -1": (lambda m: m(TOKENS, segments=TOKENS - 3), r"segments must be -1 \(padding\) or more, got -2"),
    "segments that are true or false": (lambda m: m(TOKENS, segments=TOKENS > 2), "segments must be int64 or int32"),
    "segments of other tokens": (lambda m: m(TOKENS, segments=TOKENS[:, 1:]), r"segments must be .* got \(2, 2\)"),
    "a state of other rows": (lambda m: m(TOKENS, state=m.state(3)), "decode state is for 3 rows, got 2"),
    "targets of other tokens": (lambda m: m(TOKENS, TOKENS[:, 1:]), r"targets must be .* \(2, 3\), got \(2, 2\)"),
    "a target too large": (lambda m: m(TOKENS, TOKENS * 999), "targets that are not -100 must be from 0 to 6"),
    "another ignored target": (lambda m: m(TOKENS, TOKENS * 0 - 1), "targets .* got -1"),
    "targets that are no ids": (lambda m: m(TOKENS, TOKENS.float()), "targets must be ids, int64, got float32"),
    "targets of training": (
        lambda m: m(TOKENS, TOKENS[:, 1:], skip_logits=True),
        "targets must be of the shape of tokens",
    ),
}


def _twice(model: Model) -> None:
    state = model.state(2)
    for _ in range(2):
        model(TOKENS, state=state)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_in_words(model: Model, what: str) -> None:
    give, words = WRONG[what]
    with pytest.raises(ValueError, match=words):
        give(model)


@pytest.mark.parametrize("position", ["rope", "alibi", "key_alibi", "none"])
def test_positions_that_go_on_take_more_than_max_seq_len(position: str) -> None:
    model = tiny(position)
    long = TOKENS.repeat(1, 2)
    with torch.no_grad(), pytest.warns(UserWarning, match=r"6 tokens are more than max_seq_len \(4\)"):
        logits = model(long).logits
    assert torch.allclose(logits[:, :4], model(long[:, :4]).logits, atol=1e-6)
    state = model.state(2, 6)
    with torch.no_grad():
        assert torch.allclose(torch.cat([model(p, state=state).logits for p in long.split(2, 1)], 1), logits, atol=1e-6)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_positions_that_end_take_no_more(position: str) -> None:
    with pytest.raises(ValueError, match=f"position '{position}' ends, got 6"):
        tiny(position)(TOKENS.repeat(1, 2))


def test_small_ids_are_ids(model: Model) -> None:
    assert torch.equal(model(TOKENS.int()).logits, model(TOKENS).logits)


def test_where_no_target_counts_there_is_nothing_to_learn(model: Model) -> None:
    loss = model(TOKENS, torch.full_like(TOKENS, IGNORE)).loss
    assert loss == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert model(TOKENS, torch.full_like(TOKENS, IGNORE), skip_logits=True).loss == 0
