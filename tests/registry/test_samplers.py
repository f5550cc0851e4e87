"""Samplers keep what their papers say they keep, whatever the logits, and leave something to choose."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from registry import core
from registry.contracts import Sampler

NARROWING = ["greedy", "top_k", "top_p", "min_p"]


def sampler(name: str, **options: float) -> Sampler:
    part = core.get("sampler", name)
    return part(part.Options(**options))


def kept(logits: Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    """(B, V), with ties, large values and tokens that an earlier sampler ruled out."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    value = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-1e30, -5.0, 0.0, 5.0, 1e30]))
    values = torch.tensor([[draw(value) for _ in range(width)] for _ in range(rows)])
    out = torch.tensor([[draw(st.booleans()) for _ in range(width)] for _ in range(rows)])
    out.scatter_(1, torch.tensor([[draw(st.integers(0, width - 1))] for _ in range(rows)]), False)
    return values.masked_fill(out, -torch.inf)


@given(st.data(), logits(), st.sampled_from(NARROWING))
def test_what_stays_keeps_its_logit_and_something_stays(data: st.DataObject, x: Tensor, name: str) -> None:
    option = {"top_k": st.integers(1, 15)}.get(name, st.floats(0, 1, exclude_min=True))
    chosen = {} if name == "greedy" else {"k" if name == "top_k" else "p": data.draw(option)}
    before = x.clone()
    y = sampler(name, **chosen).apply(x)
    assert torch.equal(x, before)
    stays = y != -torch.inf
    assert torch.equal(y[stays], x[stays])
    assert stays.any(dim=-1).all()
    assert stays.gather(1, x.argmax(dim=-1, keepdim=True)).all() or (y.amax(-1) == x.amax(-1)).all()


@given(st.data(), logits())
def test_rows_are_narrowed_alone(data: st.DataObject, x: Tensor) -> None:
    name = data.draw(st.sampled_from([*NARROWING, "temperature"]))
    part = sampler(name)
    alone = torch.cat([part.apply(row[None]) for row in x])
    assert torch.equal(part.apply(x), alone)


@given(logits())
def test_greedy_keeps_one_token_and_it_is_a_likeliest(x: Tensor) -> None:
    tokens = kept(sampler("greedy").apply(x))
    assert [len(row) for row in tokens] == [1] * len(x)
    assert all(x[row, token] == x[row].max() for row, (token,) in enumerate(tokens))


@given(logits(), st.integers(1, 15))
def test_top_k_keeps_k_of_the_possible_and_none_below_one_left_out(x: Tensor, k: int) -> None:
    y = sampler("top_k", k=k).apply(x)
    for row, tokens in enumerate(kept(y)):
        possible = int(x[row].isfinite().sum())
        assert len(tokens) == min(k, possible)
        left_out = [x[row, t] for t in range(x.shape[1]) if t not in tokens]
        assert all(x[row, t] >= out for t in tokens for out in left_out)


@given(logits(), st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_holds_p(x: Tensor, p: float) -> None:
    y = sampler("top_p", p=p).apply(x)
    for row, tokens in enumerate(kept(y)):
        share = x[row].double().softmax(0)
        held = sorted((float(share[t]) for t in tokens), reverse=True)
        assert sum(held) >= p - 1e-5
        assert sum(held[:-1]) <= p + 1e-5
        assert all(share[t] <= held[-1] for t in range(x.shape[1]) if t not in tokens)


def test_top_p_of_one_keeps_every_token_and_the_smallest_keeps_one() -> None:
    x = torch.linspace(0, 40, 1000)[None]
    assert torch.equal(sampler("top_p", p=1.0).apply(x), x)
    assert kept(sampler("top_p", p=1e-12).apply(x)) == [[999]]


@given(logits(), st.floats(0.01, 1.0))
def test_min_p_keeps_what_is_at_least_p_times_the_likeliest(x: Tensor, p: float) -> None:
    y = sampler("min_p", p=p).apply(x)
    share = x.double().softmax(-1)
    ratio = share / share.amax(-1, keepdim=True)
    assert (y != -torch.inf)[ratio > p * 1.001].all()
    assert not (y != -torch.inf)[ratio < p * 0.999].any()


@given(logits(), st.floats(1e-3, 1e3))
def test_temperature_divides_the_logits(x: Tensor, value: float) -> None:
    y = sampler("temperature", value=value).apply(x)
    torch.testing.assert_close(y.double().softmax(-1), (x.double() / value).softmax(-1), rtol=1e-3, atol=1e-4)


def test_order_matters() -> None:
    x = torch.tensor([[3.0, 2.0, 1.0]])
    hot, nucleus = sampler("temperature", value=100.0), sampler("top_p", p=0.6)
    assert kept(hot.apply(nucleus.apply(x))) == [[0]]
    assert kept(nucleus.apply(hot.apply(x))) == [[0, 1]]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("temperature", "value", v) for v in (-1.0, 0.0, 1e-45, math.nan, math.inf, -math.inf, 1e9, True, "1")),
        *(("top_k", "k", v) for v in (0, -1, 1.5, True, "5", 10**12)),
        *((name, "p", v) for name in ("top_p", "min_p") for v in (0.0, -0.1, 1.1, math.nan, True, "0.5")),
        ("greedy", "value", 1.0),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(ValidationError, match=option):
        core.get("sampler", name).Options.model_validate({option: value})
