"""Checks that what is fast gives what is plain: packed weights and the loss a piece at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from registry import linear
from registry.contracts import ModelPart
from transformer_kit.generate.fast import Laid
from transformer_kit.generate.layouts import Packed, Packer, eight_bits, layouts
from transformer_kit.model.loss import summed
from transformer_kit.model.model import Model
from transformer_kit.testing.carriers import ROWS, agree, strong_init, tokens
from transformer_kit.testing.checks import MODEL, check
from transformer_kit.testing.model_checks import default, standing

PROMPT = 5
ROUNDED = 0.03


@check(MODEL)
def packed_weights_decode_alike(part: Any) -> None:
    """Decoding with weights packed for few rows gives the plain logits, in every layout this machine knows."""
    model = default(part).build().eval()
    strong_init(model, 0)
    ids = tokens(model)
    with torch.inference_mode():
        expected = _decoded(model, ids)
        for rows in (1, ROWS):
            for packer in layouts(rows):
                products = list[Tensor]()
                with Laid(model, _noting(packer, products), rows) as laid, laid.active():
                    agree(_decoded(model, ids[:rows]), expected[:rows], "logits with packed weights")
                assert products, "nothing was multiplied with packed weights"


@check(MODEL)
def eight_bits_decode_nearly_alike(part: Any) -> None:
    """Decoding with weights rounded to 8 bits gives the plain logits but for three hundredths of their size."""
    model = default(part).build().eval()
    strong_init(model, 0)
    ids, products = tokens(model, rows=1), list[Tensor]()
    with torch.inference_mode():
        expected = _decoded(model, ids)
        with Laid(model, _noting(eight_bits, products), 1) as laid, laid.active():
            off = (_decoded(model, ids) - expected).norm() / expected.norm()
    assert products, "nothing was multiplied with weights of 8 bits"
    assert off <= ROUNDED, f"with weights of 8 bits logits are off by {off:.3f} of their size"


@check(MODEL)
def layers_together_read_the_same(part: Any) -> None:
    """Layers that a part says read one tensor are given one and the same."""
    for what, held in standing(part):
        model = held.build().eval()
        read: dict[nn.Module, Tensor] = {}
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(partial(_note, read))
        model(tokens(model))
        for module in model.modules():
            for names in module.together if isinstance(module, ModelPart) else ():
                given = [read[m] for name in names if isinstance(m := getattr(module, name), nn.Linear) and m in read]
                assert all(x is given[0] for x in given), f"{what}: {', '.join(names)} read different tensors"


@check(MODEL)
def products_of_onednn_are_those_of_torch(part: Any) -> None:
    """Logits and gradients with oneDNN's products, of whatever size, are those with torch's."""
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
                torch.manual_seed(0)
                logits = model(ids).logits
                logits.square().sum().backward()
            gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            assert bool(made.called) == faster, f"{what}: who multiplied is not who was asked"
            found.append((logits.detach(), torch.cat(gradients)))
        for name, plain, other in zip(("logits", "gradients"), *found, strict=True):
            far = (other - plain).norm() / plain.norm()
            assert far <= 1e-3, f"{what}: {name} with oneDNN's products are off by {far} of their size"


@check("head")
def loss_in_pieces_is_the_loss(part: Any) -> None:
    """Computed some tokens at a time, with targets that do not count, the loss and each gradient are those of all."""
    for what, held in standing(part):
        model = held.build()
        strong_init(model, 0)
        ids = tokens(model)
        targets = ids.roll(-1, 1).masked_fill(ids % 3 == 0, -100).flatten()
        found = []
        for rows in (4, targets.numel()):
            model.zero_grad()
            features = model.norm(model.embedding(ids)).flatten(0, 1)
            loss = summed(model.head, features, model.embedding.weight, targets, rows)
            loss.backward()
            found.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        (loss, gradients), (expected, plain) = found
        assert torch.isclose(loss, expected), f"{what}: the loss is {expected}, in pieces {loss}"
        for pieces, whole in zip(gradients, plain, strict=True):
            far = (pieces - whole).abs().max()
            assert far <= 1e-4 * (1 + whole.abs().max()), f"{what}: a gradient of the loss in pieces is off by {far}"


@contextmanager
def _onednn_takes(everything: bool) -> Iterator[Any]:
    """Inside, oneDNN makes every product, or none; what notes its products."""
    with (
        patch.object(linear, "onednn_is_faster", lambda: everything),
        patch.object(linear, "WORK", 1),
        patch.object(linear, "_multiply", wraps=linear._multiply) as made,
    ):
        yield made


def _noting(packer: Packer, products: list[Tensor]) -> Packer:
    """`packer`, whose products are added to `products`."""

    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        multiply = packer(weight, bias)

        def noted(x: Tensor) -> Tensor:
            products.append(multiply(x))
            return products[-1]

        return noted

    return pack


def _note(read: dict[nn.Module, Tensor], linear: nn.Module, given: tuple[Any, ...]) -> None:
    read[linear] = given[0]


def _decoded(model: Model, ids: Tensor) -> Tensor:
    """Logits of a prompt and of what follows it, one token of each row at a time."""
    state = model.state(len(ids))
    found = [model(ids[:, :PROMPT], state=state).logits]
    found += [model(ids[:, t : t + 1], state=state).logits for t in range(PROMPT, ids.shape[1])]
    return torch.cat(found, dim=1)
