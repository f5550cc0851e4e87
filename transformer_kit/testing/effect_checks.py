"""The check that no option is swallowed: changing it changes what the part does.

What a part does is measured by family: of a part of a model its parameters, first weights, output and training.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from pydantic.fields import FieldInfo
from torch import Tensor

from registry import core
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
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.testing.carriers import Carrier, carrier, plain_model, tokens
from transformer_kit.testing.checks import ALL, check
from transformer_kit.testing.run_checks import TEXTS, VOCAB, Bowl, corpus, trained, walk
from transformer_kit.testing.values import Path as Place
from transformer_kit.testing.values import changed, leaves, minimal, values, variants

Effect = Callable[[Options], Hashable]
Measure = tuple[Effect, dict[str, Hashable]]
"""What measures, and what it has measured."""


@check(ALL)
def every_option_matters(part: Any) -> None:
    """For each option there are two values between which parameters, output, training or decoding differ."""
    measure = next((m for kind, m in EFFECTS.items() if issubclass(part, kind)), None)
    if measure is None:
        return
    measures: list[Measure] = [(measure, {}), (_turned, {})]
    for path, field in leaves(part.Options, optional=True):
        assert _matters(part, path, _choices(field), measures), f"no value of {'.'.join(path)} changes anything"


def _choices(field: FieldInfo) -> list[Any]:
    """Values of a field; a slot whose family has a single part takes that part's variants."""
    found = values(field)
    parts = [v for v in found if isinstance(v, Options)]
    return [o for _, o in variants(parts[0].part)] if len(found) == len(parts) == 1 else found


def _matters(part: Any, place: Place, choices: list[Any], measures: list[Measure]) -> bool:
    """Whether two values of an option differ in effect, beside some choice of the others, of its own group first."""
    default, *others = variants(part)
    group = ".".join((*place[:-1], ""))
    for _, beside in [default, *sorted(others, key=lambda v: not v[0].startswith(group))]:
        options = [o for value in choices if (o := changed(beside, place, value)) is not None]
        for measure, seen in measures:
            effects = {e for o in options if (e := _measured(o, measure, seen)) is not None}
            if len(effects) > 1:
                return True
    return False


def _measured(options: Options, measure: Effect, seen: dict[str, Hashable]) -> Hashable:
    """The effect of these options; None where they are refused."""
    key = options.model_dump_json()
    if key not in seen:
        try:
            seen[key] = measure(options)
        except (SpecError, ValueError):
            seen[key] = None
    return seen[key]


def _of_model(options: Options) -> Hashable:
    """Names, shapes and first values of the weights; output with strong weights; loss in training."""
    return _effect(carrier(options))


def _turned(options: Options) -> Hashable:
    """The same of a mixer whose queries and keys rotate, which is where some options show."""
    if not issubclass(options.part, Mixer) or "rotation" not in options.part.accepts:
        return None
    schemes = (core.get("position", n) for n in core.names("position"))
    return _effect(carrier(options).with_model(position=minimal(next(p for p in schemes if p.acts == "rotation"))))


def _effect(held: Carrier) -> Hashable:
    weights = held.build().state_dict()
    model = held.strong()
    ids = tokens(model)
    with torch.no_grad():
        logits = model(ids).logits
        torch.manual_seed(0)
        trained_logits, loss = model.train()(ids, ids)
        told = _stepped(model)
    first = tuple((name, tuple(t.shape), _digest(t)) for name, t in weights.items())
    assert loss is not None
    return first, _digest(logits), _digest(trained_logits), float(loss), told


def _stepped(model: Model) -> Hashable:
    """What parts say after an optimizer step, and the buffers that it leaves."""
    told = [part.after_step() for part in model.modules() if isinstance(part, ModelPart)]
    numbers = tuple((name, float(value)) for values in told for name, value in values.items())
    return numbers, tuple(_digest(buffer) for buffer in model.buffers())


def _of_tokenizer(options: Options) -> Hashable:
    with corpus() as base:
        tokenizer = trained(options, base)
        return tuple(map(tuple, map(tokenizer.encode, TEXTS))), tokenizer.vocab_size, tokenizer.fingerprint


def _of_dataset(options: Options) -> Hashable:
    with corpus() as base:
        return tuple(d for d, _ in zip(options.part(options, base).documents(), range(20), strict=False))


def _of_schedule(options: Options) -> Hashable:
    return tuple(options.part(options).scale(step, 20) for step in range(20))


def _of_sampler(options: Options) -> Hashable:
    logits = torch.randn(8, VOCAB, generator=torch.Generator().manual_seed(0))
    return _digest(options.part(options).apply(logits))


def _of_optimizer(options: Options) -> Hashable:
    bowl = Bowl()
    walk(bowl, options.part(options).make(bowl), 3)
    return tuple(_digest(p.detach()) for p in bowl.parameters())


def _of_objective(options: Options) -> Hashable:
    model = plain_model()
    ids = tokens(model)
    loss, count = options.part(options).loss(model, ids, None)
    return _digest(loss.detach()), int(count)


def _digest(values: Tensor) -> Hashable:
    return tuple(values.double().flatten().tolist()) if values.numel() < 64 else values.double().numpy().tobytes()


EFFECTS: dict[type[Part], Effect] = {
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
