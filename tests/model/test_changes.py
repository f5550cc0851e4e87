"""A model that was changed by hand is not saved as if it were what its spec says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.model.test_init_weights import page
from transformer_kit import Model, Spec, build, load, save
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.model.folder import FolderError
from transformer_kit.transform.activation_checkpointing import activation_checkpointing

Change = Callable[[Model], Any]


def replaced(model: Model) -> None:
    model.layers[1].ffn.activation = nn.ReLU()


def silenced(model: Model) -> None:
    model.layers[0].mixer = nn.Identity()


def cut(model: Model) -> None:
    del model.layers[1]


def repeated(model: Model) -> None:
    model.layers.append(model.layers[1])


def widened(model: Model) -> None:
    model.head.out = nn.Linear(8, 19, bias=True)


def resized(model: Model) -> None:
    model.embedding.table = nn.Embedding(23, 8)


def an_option(model: Model) -> None:
    model.layers[1].mixer.eps = 0.5


def a_forward(model: Model) -> None:
    mixer = model.layers[1].mixer
    mixer.forward = lambda x, *rest: x


def tied(model: Model) -> None:
    model.head.out.weight = model.embedding.table.weight


def one_layer_for_two(model: Model) -> None:
    model.layers[0].mixer_norm = model.layers[1].mixer_norm


def wrapped(model: Model) -> None:
    nn.utils.parametrizations.weight_norm(model.layers[1].mixer.q)


CHANGES: list[tuple[Change, str]] = [
    (replaced, r"layers\.1\.ffn\.activation is 'torch.nn.modules.activation.ReLU', not 'gelu'$"),
    (silenced, r"layers\.0\.mixer is None, not 'attention'$"),
    (cut, r"layers\.1 is None, not 'pre_norm'$"),
    (repeated, r"layers\.2 is 'pre_norm', not None"),
    (widened, r"head\.out\.bias is \(19,\), not None"),
    (resized, r"embedding\.table\.weight is \(23, 8\), not \(19, 8\)"),
    (an_option, r"layers\.1\.mixer\.eps is 0\.5, not 1e-05"),
    (a_forward, r"layers\.1\.mixer\.forward is"),
    (tied, r"head\.out\.weight and embedding\.table\.weight are one tensor"),
    (one_layer_for_two, r"layers\.1\.mixer_norm\.weight and layers\.0\.mixer_norm\.weight are one tensor"),
    (wrapped, r"layers\.1\.mixer\.q"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_what_the_spec_does_not_describe_is_refused(tmp_path: Path, change: Change, told: str) -> None:
    model = build(Spec.of(page()))
    change(model)
    with pytest.raises(FolderError, match=rf"(?m)is not what its spec describes.*\n(.*\n)*  {told}") as caught:
        save(model, tmp_path / "saved")
    assert len(str(caught.value).splitlines()) <= 5
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConvertError, match="is not what its spec describes"):
        export(model, tmp_path / "exported")


def cast(model: Model) -> None:
    model.to(torch.bfloat16)


def frozen(model: Model) -> None:
    model.layers[0].requires_grad_(False)


def other_weights(model: Model) -> None:
    model.head.out.weight = nn.Parameter(torch.ones(19, 8))


def compiled(model: Model) -> None:
    model.layers[0].compile(backend="eager")


def trained(model: Model) -> None:
    ids = torch.arange(12).view(2, 6)
    model.train()(ids, ids).loss.backward()
    torch.optim.AdamW(model.parameters()).step()


def generated(model: Model) -> None:
    model.eval().generate([[1, 2, 3], [4]], max_new_tokens=3)


LEGAL: list[Change] = [cast, frozen, other_weights, compiled, trained, activation_checkpointing, generated]


@pytest.mark.parametrize("change", LEGAL, ids=[change.__name__ for change in LEGAL])
def test_what_is_no_part_of_a_spec_may_change(tmp_path: Path, change: Change) -> None:
    model = build(Spec.of(page()), kernel="eager")
    change(model)
    again = load(save(model, tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
