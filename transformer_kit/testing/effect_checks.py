"""The check that every option has an effect: another value changes what the part does.

The effect of a part depends on its family: for a part of a model it is its initial weights, output, training, and the
result of `after_step`. Other tensors than before are not enough; they must be used. Tensors that both models have get
the same values, so only the other tensors can make a difference.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from registry.contracts import (
    Dataset,
    Init,
    Mixer,
    ModelPart,
    Objective,
    Optimizer,
    Part,
    Sampler,
    Scaling,
    Schedule,
    Tokenizer,
)
from registry.options import Options
from transformer_kit.spec.errors import SpecError
from transformer_kit.testing.carriers import Carrier, carrier, plain_model, tokens
from transformer_kit.testing.checks import ALL, check
from transformer_kit.testing.run_checks import TEXTS, VOCAB, Bowl, corpus, trained, walk
from transformer_kit.testing.values import STRINGS, changed, leaves, minimal, sound, values, variants
from transformer_kit.testing.values import Path as Place


@dataclass(frozen=True)
class Effect:
    """Measured effect of some options."""

    done: Hashable
    """Output and training: compared directly."""
    tensors: dict[str, Tensor]
    """Initial weights, and buffers after a step: compared where both sides have one of this name and shape."""


Measuring = Callable[[Options], Effect | None]
Measure = tuple[Measuring, dict[str, Effect | None]]
"""Measures effects, and caches them."""


@check(ALL)
def every_option_matters(part: Any) -> None:
    """For each option, two of its values give other initial weights, output or training."""
    measure = next((m for kind, m in EFFECTS.items() if issubclass(part, kind)), None)
    if measure is None:
        return
    measures: list[Measure] = [(measure, {}), (_turned, {})]
    for path, field in leaves(part.Options, optional=True):
        assert _matters(part, path, _choices(field), measures), f"no value of {'.'.join(path)} changes anything"


def _choices(field: FieldInfo) -> list[Any]:
    """Values of a field; for a slot whose family has a single part, variants of that part."""
    found = values(field)
    parts = [v for v in found if isinstance(v, Options)]
    return [o for _, o in variants(parts[0].part)] if len(found) == len(parts) == 1 else found


def _matters(part: Any, place: Place, choices: list[Any], measures: list[Measure]) -> bool:
    """Whether two values of an option differ in effect, with some choice of other options, its own group's first."""
    default, *others = variants(part)
    group = ".".join((*place[:-1], ""))
    for _, beside in [default, *sorted(others, key=lambda v: not v[0].startswith(group))]:
        options = [o for value in choices if (o := changed(beside, place, value)) is not None]
        for measure, seen in measures:
            effects = [e for o in options if (e := _measured(o, measure, seen)) is not None]
            if any(_differ(a, b) for a, b in combinations(effects, 2)):
                return True
    return False


def _differ(a: Effect, b: Effect) -> bool:
    pairs = [(t, b.tensors[name]) for name, t in a.tensors.items() if name in b.tensors]
    return a.done != b.done or any(t.shape == other.shape and not torch.equal(t, other) for t, other in pairs)


def _measured(options: Options, measure: Measuring, seen: dict[str, Effect | None]) -> Effect | None:
    """The effect of these options; None for invalid ones."""
    key = options.model_dump_json()
    if key not in seen:
        try:
            seen[key] = measure(options)
        except (SpecError, ValueError):
            seen[key] = None
    return seen[key]


def _of_model(options: Options) -> Effect:
    """Initial weights, output with strong weights, loss in training, and buffers after a step."""
    return _effect(carrier(options))


def _turned(options: Options) -> Effect | None:
    """The same for a mixer with rotary positions, where some options have an effect."""
    if not issubclass(options.part, Mixer) or "rotation" not in options.part.accepts:
        return None
    scheme = next(p for p in sound("position") if p.acts == "rotation")
    return _effect(carrier(options).with_model(position=minimal(scheme)))


def _effect(held: Carrier) -> Effect:
    first = held.build().state_dict()
    model = held.strong()
    ids = tokens(model)
    with torch.no_grad():
        logits = model(ids).logits
        torch.manual_seed(0)
        trained_logits, loss = model.train()(ids, ids)
    assert loss is not None
    told = [part.after_step() for part in model.modules() if isinstance(part, ModelPart)]
    numbers = tuple(float(value) for values in told for value in values.values())
    after = {f"{name}, after a step": buffer for name, buffer in model.named_buffers()}
    return Effect((_digest(logits), _digest(trained_logits), float(loss), numbers), {**first, **after})


def _of_tokenizer(options: Options) -> Effect:
    with corpus() as base:
        tokenizer = trained(options, base)
        return Effect(
            (tuple(map(tuple, map(tokenizer.encode, TEXTS))), tokenizer.vocab_size, tokenizer.fingerprint), {}
        )


def _of_dataset(options: Options) -> Effect:
    with corpus() as base:
        documents = tuple(d for d, _ in zip(options.part(options, base).documents(), range(20), strict=False))
        for name in STRINGS:
            (base / name).write_text("no line of JSON\n", "utf-8")
        return Effect((documents, bool(list(options.part(options, base).faults(whole=True)))), {})


def _of_schedule(options: Options) -> Effect:
    return Effect(tuple(options.part(options).scale(step, 20) for step in range(20)), {})


def _of_sampler(options: Options) -> Effect:
    logits = torch.randn(8, VOCAB, generator=torch.Generator().manual_seed(0))
    return Effect(_digest(options.part(options).apply(logits)), {})


def _of_optimizer(options: Options) -> Effect:
    bowl = Bowl()
    walk(bowl, options.part(options).make(bowl), 3)
    return Effect(tuple(_digest(p.detach()) for p in bowl.parameters()), {})


def _of_objective(options: Options) -> Effect:
    model = plain_model()
    ids = tokens(model)
    loss, count = options.part(options).loss(model, ids, None)
    return Effect((_digest(loss.detach()), int(count)), {})


def _digest(values: Tensor) -> Hashable:
    return tuple(values.double().flatten().tolist()) if values.numel() < 64 else values.double().numpy().tobytes()


EFFECTS: dict[type[Part], Measuring] = {
    ModelPart: _of_model,
    Init: _of_model,
    Scaling: _of_model,
    Tokenizer: _of_tokenizer,
    Dataset: _of_dataset,
    Schedule: _of_schedule,
    Sampler: _of_sampler,
    Optimizer: _of_optimizer,
    Objective: _of_objective,
}
