"""Checks that transforms and the chunked loss give the results of the plain model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from registry.contracts import Router
from transformer_kit.model.loss import chunked_cross_entropy
from transformer_kit.model.model import Model
from transformer_kit.testing.carriers import ROWS, agree, strong_init, tokens
from transformer_kit.testing.checks import MODEL, check
from transformer_kit.testing.model_checks import default, standing
from transformer_kit.transform import onednn_linear, packed_linear
from transformer_kit.transform.linear_layers import QuantizedLinear, linear_layers
from transformer_kit.transform.packed_linear import PackedLinear, Packer, packers
from transformer_kit.transform.prepare import prepare_for_inference

PROMPT = 5
ROUNDED, REROUTED = 0.04, 0.2


@check(MODEL)
def prepared_models_decode_alike(part: Any) -> None:
    """A model prepared for inference gives the plain logits, with each weight layout that this machine supports."""
    plain = _model(part)
    ids = tokens(plain)
    with torch.inference_mode():
        expected = _decoded(plain, ids)
        for rows in (1, ROWS):
            for pack in packers(plain.embedding.weight, rows):
                model = _model(part)
                with _packed_by(pack):
                    prepare_for_inference(model, batch=rows)
                assert any(isinstance(layer, PackedLinear) for _, layer in linear_layers(model)), "nothing is packed"
                agree(_decoded(model, ids[:rows]), expected[:rows], f"logits with weights packed by {pack.__name__}")


@check(MODEL)
def int8_models_decode_nearly_alike(part: Any) -> None:
    """A model with int8 weights gives the plain logits within 4 % of their size.

    A mixture may be off by 20 %, since a router near a tie may choose another expert.
    """
    plain = _model(part)
    ids = tokens(plain)
    for rows in (1, ROWS):
        model = prepare_for_inference(_model(part), batch=rows, int8=True)
        assert any(isinstance(layer, QuantizedLinear) for _, layer in linear_layers(model)), "nothing is quantized"
        with torch.inference_mode():
            expected = _decoded(plain, ids[:rows])
            off = (_decoded(model, ids[:rows]) - expected).norm() / expected.norm()
        routed = any(isinstance(module, Router) for module in model.modules())
        assert off <= (REROUTED if routed else ROUNDED), f"with int8 weights logits are off by {off:.3f} of their size"


@check(MODEL)
def products_of_onednn_are_those_of_torch(part: Any) -> None:
    """Logits and gradients with oneDNN's products equal those with torch's, at all sizes."""
    if not torch.backends.mkldnn.is_available():
        return
    for what, held in standing(part):
        model = held.build()
        strong_init(model, 0)
        ids = tokens(model)
        found = []
        for faster in (False, True):
            model.zero_grad()
            with _onednn_takes(faster) as made:
                onednn_linear.onednn_linear(model)
                torch.manual_seed(0)
                logits = model(ids).logits
                logits.square().sum().backward()
            gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            assert bool(made.called) == faster, f"{what}: another library computed the product"
            found.append((logits.detach(), torch.cat(gradients)))
        for name, plain, other in zip(("logits", "gradients"), *found, strict=True):
            far = (other - plain).norm() / plain.norm()
            assert far <= 1e-3, f"{what}: {name} with oneDNN's products are off by {far} of their size"


@check("head")
def chunked_loss_is_the_loss(part: Any) -> None:
    """The chunked loss and its gradients equal those of all logits at once, with ignored targets."""
    for what, held in standing(part):
        model = held.build()
        strong_init(model, 0)
        ids = tokens(model)
        targets = ids.roll(-1, 1).masked_fill(ids % 3 == 0, -100)
        found = []
        for size in (4, targets.numel()):
            model.zero_grad()
            features = model.norm(model.embedding(ids))
            loss = chunked_cross_entropy(model.head, features, model.embedding.weight, targets, size)
            loss.backward()
            found.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        (loss, gradients), (expected, plain) = found
        assert torch.isclose(loss, expected), f"{what}: the loss is {expected}, in chunks {loss}"
        for chunked, whole in zip(gradients, plain, strict=True):
            far = (chunked - whole).abs().max()
            assert far <= 1e-4 * (1 + whole.abs().max()), f"{what}: a gradient of the chunked loss is off by {far}"


@contextmanager
def _onednn_takes(everything: bool) -> Iterator[Any]:
    """Inside, oneDNN computes every product, or none; yields a record of its products."""
    with (
        patch.object(onednn_linear, "prefers_onednn", lambda: everything),
        patch.object(onednn_linear, "WORK", 1),
        patch.object(onednn_linear, "_multiply", wraps=onednn_linear._multiply) as made,
    ):
        yield made


@contextmanager
def _packed_by(pack: Packer) -> Iterator[None]:
    """Inside, weights are packed like this on any machine."""
    with patch.object(packed_linear, "packer", lambda weight, rows: pack):
        yield


def _model(part: Any) -> Model:
    """A model in float32 with strong weights."""
    model = default(part).build().eval()
    strong_init(model, 0)
    return model


def _decoded(model: Model, ids: Tensor) -> Tensor:
    """Logits of a prompt and of the tokens after it, one token of each row at a time."""
    state = model.state(len(ids))
    found = [model(ids[:, :PROMPT], state=state).logits]
    found += [model(ids[:, t : t + 1], state=state).logits for t in range(PROMPT, ids.shape[1])]
    return torch.cat(found, dim=1)
