"""The candidates: the kit, two modules written by hand, and well-known packages where they are installed."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transformer_kit.bench.candidate import Candidate
from transformer_kit.bench.packages import litgpt, transformers, x_transformers
from transformer_kit.bench.plain import Plain
from transformer_kit.bench.shape import config_of, shape_of
from transformer_kit.bench.tutorial import Tutorial
from transformer_kit.generate import stream
from transformer_kit.model.build import build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec
from transformer_kit.transform.activation_checkpointing import activation_checkpointing
from transformer_kit.transform.onednn_linear import onednn_linear
from transformer_kit.transform.pipeline import transformed
from transformer_kit.transform.prepare import InferenceModel, prepare_for_inference

KIT, INT8, LEAN = "transformer_kit", "int8", "lean"


def kit(spec: Spec, config: dict[str, Any], name: str = KIT) -> Candidate:
    """The kit's own model: as commands use it, with int8 weights, or training in as little memory as possible.

    It is prepared for inference at its first prompt, for that batch size.
    """
    device = torch.get_default_device()
    model = transformed(
        build(spec, device=device),
        onednn_linear=onednn_linear if device.type == "cpu" else None,
        activation_checkpointing=activation_checkpointing if name == LEAN else None,
    )

    def ready(batch: int) -> Model:
        if not isinstance(model, InferenceModel):
            prepare_for_inference(model, batch=batch, int8=name == INT8)
        return model

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        found = model(tokens, targets, skip_logits=True).loss
        assert found is not None
        return found

    def written(compile: bool, tokens: Tensor, count: int) -> Iterator[Any]:
        return stream(ready(len(tokens)), tokens.tolist(), max_new_tokens=count, compile=compile)

    return Candidate(
        name,
        model,
        spec.model.vocab_size,
        loss,
        lambda tokens: ready(len(tokens))(tokens, last=True).logits,
        partial(written, False),
        partial(written, True),
        optimizer_in_backward=name == LEAN,
        cached=False,
    )


def plain(spec: Spec, config: dict[str, Any]) -> Candidate:
    """The hand-written module."""
    model = Plain(shape_of(config))
    return Candidate(
        "plain", model, spec.model.vocab_size, model.loss, lambda tokens: model(tokens, last=True), model.decode
    )


def tutorial(spec: Spec, config: dict[str, Any]) -> Candidate:
    """The tutorial's module."""
    model = Tutorial(shape_of(config))
    return Candidate("tutorial", model, spec.model.vocab_size, model.loss, model, model.decode)


PEERS: dict[str, Callable[[Spec, dict[str, Any]], Candidate]] = {
    "plain": plain,
    "tutorial": tutorial,
    "transformers": transformers,
    "litgpt": litgpt,
    "x-transformers": x_transformers,
    INT8: partial(kit, name=INT8),
    LEAN: partial(kit, name=LEAN),
}


def candidate(name: str, spec: Spec) -> Candidate:
    """A candidate by name, without dropout. Raises NoPeer when it does not support this model."""
    spec = undropped(spec)
    return kit(spec, {}) if name == KIT else PEERS[name](spec, config_of(spec))


def undropped(spec: Spec) -> Spec:
    """The model of a spec without dropout, which peers implement differently."""
    page = Spec(kit=spec.kit, plugins=spec.plugins, model=spec.model.model_copy(update={"dropout": 0.0}))
    page._source = spec._source
    return page


def parameters(module: nn.Module) -> int:
    """Distinct parameters of a module."""
    return sum(p.numel() for p in module.parameters())
