"""Checks of a single part whose contract defines inputs and outputs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from registry import core
from registry.context import Context, Mask
from registry.contracts import FFN, Site
from registry.options import Options
from transformer_kit.model.build import KERNEL, assemble
from transformer_kit.spec.errors import SpecError
from transformer_kit.testing.carriers import (
    D_MODEL,
    LAYERS,
    LENGTH,
    MAX_SEQ_LEN,
    ROWS,
    VOCAB,
    agree,
    strong_init,
    tokens,
)
from transformer_kit.testing.checks import check
from transformer_kit.testing.model_checks import assert_reason, default
from transformer_kit.testing.values import minimal, sound, variants

PLACES = ("embedding", "rotation", "bias", "nowhere")
HEADS = 4


def alone(options: Options) -> Any:
    """The part alone, at the site of a model (of a head, for parts of mixers), with strong weights."""
    defaults = {"kernel": minimal(core.get("kernel", KERNEL)), "norm": minimal(next(sound("norm")))}
    site = Site(D_MODEL, VOCAB, MAX_SEQ_LEN, n_layers=LAYERS, n_heads=HEADS, defaults=defaults)
    part = options.part(options, site)
    if isinstance(part, nn.Module):
        strong_init(part.double())
        part.eval()
    return part


def each(part: Any) -> Iterator[tuple[str, Any]]:
    """Every variant of a part alone, except those that its constructor refuses."""
    for what, options in variants(part):
        try:
            yield what, alone(options)
        except ValueError as error:
            assert_reason(error)


@check("activation", "norm", "ffn")
@torch.no_grad()
def tokens_independent(part: Any) -> None:
    """The output of a token depends on that token alone, not on others or their number; the shape stays."""
    x = _noise(ROWS, LENGTH, D_MODEL)
    for what, module in each(part):
        expected = _applied(module, x)
        assert expected.shape == x.shape, f"{what}: {tuple(x.shape)} became {tuple(expected.shape)}"
        assert expected.dtype == x.dtype, f"{what}: {x.dtype} became {expected.dtype}"
        for t in (0, LENGTH - 1):
            agree(_applied(module, x[:, t : t + 1]), expected[:, t : t + 1], f"{what}: token {t} alone")
        for row in range(ROWS):
            agree(_applied(module, x[row : row + 1]), expected[row : row + 1], f"{what}: row {row} alone")


def _applied(module: nn.Module, x: Tensor) -> Tensor:
    """Output of a part for features; a feed-forward gets the context of a pass."""
    y: Tensor = module(x, Context.of(x)) if isinstance(module, FFN) else module(x)
    return y


@check("activation")
@torch.no_grad()
def elementwise(part: Any) -> None:
    """It acts on each element alone, and is not linear."""
    x = _noise(ROWS, LENGTH, D_MODEL)
    for what, module in each(part):
        if not list(module.parameters()):
            agree(module(x.flip(-1)), module(x).flip(-1), f"{what}: channels in another order")
        assert not torch.allclose(module(-x), -module(x)) or not torch.allclose(module(2 * x), 2 * module(x)), (
            f"{what}: linear, so it is no activation"
        )


@check("norm")
@torch.no_grad()
def input_untouched(part: Any) -> None:
    """The input is not overwritten."""
    x = _noise(ROWS, LENGTH, D_MODEL)
    for what, module in each(part):
        before = x.clone()
        module(x)
        assert torch.equal(x, before), f"{what}: changes its input"


@check("embedding")
@torch.no_grad()
def embeds_each_id(part: Any) -> None:
    """Ids (B, T) become (B, T, D), each alone, and `weight` has a row for each id."""
    ids = torch.arange(VOCAB).repeat(2)[None]
    for what, module in each(part):
        x = module(ids)
        assert x.shape == (1, 2 * VOCAB, D_MODEL), f"{what}: ids {tuple(ids.shape)} became {tuple(x.shape)}"
        assert module.weight.ndim == 2, f"{what}: weight is {tuple(module.weight.shape)}"
        assert len(module.weight) == VOCAB, f"{what}: weight has {len(module.weight)} rows"
        agree(x[:, :VOCAB], x[:, VOCAB:], f"{what}: the same ids again")
        assert len(x[0, :VOCAB].unique(dim=0)) == VOCAB, f"{what}: two ids have one vector"


@check("head")
@torch.no_grad()
def reads_each_token(part: Any) -> None:
    """x (B, T, D) becomes logits (B, T, V), each token alone."""
    x, table = _noise(ROWS, LENGTH, D_MODEL), _noise(VOCAB, D_MODEL)
    for what, module in each(part):
        logits = module(x, table)
        assert logits.shape == (ROWS, LENGTH, VOCAB), f"{what}: {tuple(x.shape)} became {tuple(logits.shape)}"
        agree(module(x[:, 2:3], table), logits[:, 2:3], f"{what}: token 2 alone")


@check("position")
@torch.no_grad()
def acts_in_its_place(part: Any) -> None:
    """It acts at the place in `acts`, and is the identity elsewhere."""
    assert part.acts in PLACES, f"acts must be one of {', '.join(PLACES)}, got {part.acts!r}"
    x, (q, k) = _noise(ROWS, LENGTH, D_MODEL), _queries()
    for what, scheme in each(part):
        turned = scheme.rotate(q, k, _context(0))
        bias = scheme.bias(_mask(0))
        done = {
            "embedding": not torch.equal(scheme.embed(x, _context(0)), x),
            "rotation": not (torch.equal(turned[0], q) and torch.equal(turned[1], k)),
            "bias": bias is not None,
        }
        acted = [place for place, acting in done.items() if acting]
        assert acted == ([] if part.acts == "nowhere" else [part.acts]), f"{what}: acts on {acted}, says {part.acts}"


@check("position")
@torch.no_grad()
def shifts_as_promised(part: Any) -> None:
    """Equal shifts of all positions keep the scores if `shift_invariant`; otherwise they change them."""
    x, (q, k) = _noise(ROWS, LENGTH, D_MODEL), _queries()
    for what, scheme in each(part):
        if not scheme.settled:
            continue
        changes = []
        for shift in (0, 5):
            here = _context(shift)
            turned_q, turned_k = scheme.rotate(q, k, here)
            bias = scheme.bias(_mask(shift))
            added = torch.zeros(()) if bias is None else bias.double()
            changes.append((turned_q @ turned_k.transpose(-2, -1) + added, scheme.embed(x, here)))
        (scores, embedded), (other_scores, other_embedded) = changes
        if part.shift_invariant:
            agree(other_scores, scores, f"{what}: scores five positions later")
            agree(other_embedded, embedded, f"{what}: embedding five positions later")
        else:
            same = torch.allclose(scores, other_scores) and torch.allclose(embedded, other_embedded)
            assert not same, f"{what}: not shift_invariant, but a shift changes nothing"


@check("mixer")
@torch.no_grad()
def sees_the_past(part: Any) -> None:
    """Earlier tokens change the logits: the mixer mixes tokens."""
    model = default(part).strong()
    ids = torch.zeros(1, LENGTH, dtype=torch.long)
    other = ids.clone()
    other[:, 0] = 1
    far = (model(ids).logits - model(other).logits)[:, 1:].abs().amax(-1)
    assert (far > 1e-6).all(), f"tokens {(far <= 1e-6).nonzero()[:, 1].tolist()} do not attend to token 0"


@check("mixer")
def refuses_what_cannot_act(part: Any) -> None:
    """The mixer refuses a position scheme that acts where it accepts none, instead of ignoring it."""
    assert part.accepts <= {"rotation", "bias"}, f"accepts names unknown places: {set(part.accepts)}"
    for scheme in sound("position"):
        if scheme.acts in ("rotation", "bias") and scheme.acts not in part.accepts:
            held = default(part).with_model(position=minimal(scheme))
            try:
                assemble(held.spec, held.kernel)
            except SpecError:
                continue
            raise AssertionError(
                f"position '{scheme.name}' acts on the {scheme.acts}, and is ignored instead of refused"
            )


@check("mixer")
@torch.no_grad()
def uses_what_it_accepts(part: Any) -> None:
    """A scheme that acts where this mixer accepts one changes the logits."""
    schemes = list(sound("position"))
    nothing = next(s for s in schemes if s.acts == "nowhere")
    for scheme in schemes:
        if scheme.acts in part.accepts:
            models = [default(part).with_model(position=minimal(s)).strong() for s in (scheme, nothing)]
            one, other = (model(tokens(model)).logits for model in models)
            assert not torch.equal(one, other), f"accepts {scheme.acts}, but position '{scheme.name}' changes nothing"


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _queries() -> tuple[Tensor, Tensor]:
    return _noise(ROWS, HEADS, LENGTH, D_MODEL), _noise(ROWS, HEADS, LENGTH, D_MODEL).flip(2)


def _context(shift: int) -> Context:
    return Context(shift, LENGTH, torch.arange(shift, shift + LENGTH), None, None)


def _mask(shift: int) -> Mask:
    return Mask(shift, LENGTH, torch.arange(shift, shift + LENGTH), True, None, torch.device("cpu"))
