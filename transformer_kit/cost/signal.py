"""Size of activations and gradients at initialization, stage by stage, and of token against position embeddings.

    signal(read("quickstart"), length=256).stages

Measured with untrained weights and random tokens, in float32 on the CPU. Letters: N token ids, T tokens, D d_model.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from registry.context import Context
from transformer_kit.model.build import assemble
from transformer_kit.model.init import init_weights
from transformer_kit.model.loss import cross_entropy
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec
from transformer_kit.transform.materialize import fill, materialize
from transformer_kit.transform.pipeline import transformed

SMALL = 64_000_000
"""Limit in parameters for a model, or for its embeddings, to be measured."""
SAMPLE = 512
"""Tokens of the measured pass."""
IDS, PLACES = 32, 256
"""Number of token ids and positions whose vectors are compared."""
FAR = 5.0
"""Ratio of scales above which the smaller signal is hard to learn from."""


class Stage(NamedTuple):
    """Measurements of one stage of the model."""

    name: str
    activation: float
    """Root mean square of the stage's output."""
    gradient: float
    """Root mean square of the gradient of one token's loss with respect to the output."""
    weights: float | None
    """Root mean square of the mean loss's gradient with respect to the stage's parameters; None without parameters."""


class Scales(NamedTuple):
    """How much vectors differ before the first layer, as root mean squares of standard deviations."""

    tokens: float
    """Between token ids at one position."""
    positions: float
    """Between positions of one token id."""

    def note(self) -> str | None:
        """Warning where one is much larger than the other."""
        if max(self) <= FAR * min(self):
            return None
        small, large = ("tokens", "positions") if self.tokens < self.positions else ("positions", "tokens")
        ratio = f"{max(self) / min(self):.0f} times less" if min(self) > 0 else "not at all"
        return (
            f"{large} differ by {max(self):.3g} at the start and {small} by {min(self):.3g}, {ratio}, so {small} are "
            "learned late; set the scale of `position` or of `embedding`, or choose another `init`"
        )


class Signal(NamedTuple):
    """Measurements of an untrained model."""

    stages: tuple[Stage, ...]
    scales: Scales | None
    """None where positions are not added to embeddings."""
    skipped: str | None
    """Reason why nothing was measured."""

    def data(self) -> dict[str, Any]:
        """Mappings, lists and numbers that JSON can write."""
        scales = None if self.scales is None else self.scales._asdict()
        return {"stages": [stage._asdict() for stage in self.stages], "scales": scales, "skipped": self.skipped}


def signal(spec: Spec, length: int, seed: int = 0) -> Signal:
    """Measure the model of `spec` on sequences of up to `length` tokens; large models are skipped."""
    model = assemble(spec)
    if sum(p.numel() for p in model.parameters()) > SMALL:
        return Signal((), scales(model), f"the model has more than {SMALL:,} parameters")
    model = transformed(model, materialize=partial(materialize, device="cpu"), fill=partial(fill, seed=seed))
    row = min(length, SAMPLE)
    draw = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(spec.model.vocab_size, (2, max(1, SAMPLE // row), row), generator=draw)
    return Signal(tuple(stages(model.eval(), tokens, targets)), scales(model), None)


def stages(model: Model, tokens: Tensor, targets: Tensor) -> Iterator[Stage]:
    """The stages of one forward and backward pass, in order: `Model.forward` step by step."""
    context = Context.of(tokens, causal=model.stacks[0].causal)
    kept: list[tuple[str, object, Tensor]] = []

    def keep(name: str, module: object, x: Tensor) -> Tensor:
        x.retain_grad()
        kept.append((name, module, x))
        return x

    with torch.enable_grad():
        x = keep("embedding", model.embedding, model.embedding(tokens))
        if model.position.acts == "embedding":
            x = keep("position", model.position, model.position.embed(x, context))
        (decoder,) = model.stacks
        for i, layer in enumerate(decoder.layers):
            x = keep(f"layers.{i}", layer, layer(x, context, None))
        x = keep("norm", decoder.norm, decoder.norm(x))
        logits = keep("head", model.head, model.head(x, model.embedding.weight))
        cross_entropy(logits, targets).backward()
    for name, module, x in kept:
        assert x.grad is not None
        own = module.parameters() if isinstance(module, nn.Module) else ()  # an identity may be a function
        found = [p.grad.flatten() for p in own if p.grad is not None]
        yield Stage(name, _rms(x), _rms(x.grad) * tokens.numel(), _rms(torch.cat(found)) if found else None)


@torch.no_grad()
def scales(model: Model) -> Scales | None:
    """How much vectors differ by token id and by position; None without added positions, or with large tables.

    `model` may be on the meta device: only its embedding and its positions are initialized.
    """
    first = nn.Module()
    first.embedding, first.position = copy.deepcopy((model.embedding, model.position))
    if model.position.acts != "embedding" or sum(p.numel() for p in first.parameters()) > SMALL:
        return None
    first.to_empty(device="cpu")
    init_weights(first, model.spec, 0)
    ids = torch.linspace(0, model.spec.model.vocab_size - 1, IDS).long().unique()
    tokens = ids[:, None].expand(-1, min(PLACES, model.spec.model.max_seq_len))  # (N, T)
    if 1 in tokens.shape:
        return None
    x = first.position.embed(first.embedding(tokens), Context.of(tokens)).float()  # (N, T, D)
    return Scales(tokens=float(x.var(dim=0).mean().sqrt()), positions=float(x.var(dim=1).mean().sqrt()))


def _rms(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())
