"""A model's folder that is damaged, or none at all, is refused with a reason."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from transformer_kit.model.build import build
from transformer_kit.model.folder import FolderError, load, save
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec

BLOCK = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": {"type": "gated", "d_ff": 24}}
SIZES = {"vocab_size": 31, "d_model": 16, "max_seq_len": 8, "position": "rope"}


def page(**model: Any) -> dict[str, Any]:
    """A tiny model."""
    stack = {"count": 2, "block": BLOCK, "at": {-1: {"ffn": {"d_ff": 40}}}}
    return {"model": {**SIZES, "layers": stack, **model}}


@pytest.fixture
def model() -> Model:
    """With weights that are not those of any seed."""
    model = build(Spec.of(page()), seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.125)
    return model


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    """The model's folder."""
    return save(model, tmp_path / "saved")


def damage(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """A change of the tensors in a folder."""

    def apply(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return apply


def cut(path: Path) -> None:
    """Half of the weights."""
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def pickled(path: Path) -> None:
    """A bare pickle under the name of the weights."""
    (path / "model.safetensors").write_bytes(pickle.dumps({"weights": 1}))


def zipped(path: Path) -> None:
    """What torch.save writes, under the name of the weights."""
    torch.save({"weights": torch.ones(1)}, path / "model.safetensors")


def renamed(path: Path) -> None:
    """Weights under the name of a pickle."""
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


NORM = "layers.0.mixer_norm.weight"
BAD = {
    "cut short": (cut, "cannot be read as safetensors: "),
    "empty": (lambda p: (p / "model.safetensors").write_bytes(b""), "cannot be read as safetensors: "),
    "noise": (lambda p: (p / "model.safetensors").write_bytes(bytes(range(256))), "cannot be read as safetensors: "),
    "a pickle": (pickled, "model.safetensors is a pickle, which can run code; convert it to safetensors"),
    "an archive of torch": (zipped, "model.safetensors is a pickle, which can run code; convert it to safetensors"),
    "pickles alone": (
        renamed,
        "holds no model.safetensors, so it is not a model's folder; pytorch_model.bin is a pickle",
    ),
    "no spec": (lambda p: (p / "spec.yaml").unlink(), "holds no spec.yaml, so it is not a model's folder"),
    "missing": (damage(lambda t: t.pop(NORM)), f"does not fit the spec beside it:\n  missing {NORM} (16,)"),
    "extra": (damage(lambda t: t.update(more=torch.ones(2))), "does not fit the spec beside it:\n  extra more (2,)"),
    "misshapen": (damage(lambda t: t.update({NORM: torch.ones(4, 4)})), f"{NORM} is (4, 4) and should be (16,)"),
    "NaN": (damage(lambda t: t[NORM][3].fill_(torch.nan)), f"is damaged:\n  {NORM} holds NaN or infinite values"),
    "infinite": (damage(lambda t: t[NORM][3].fill_(-torch.inf)), f"is damaged:\n  {NORM} holds NaN or infinite values"),
    "whole numbers": (
        damage(lambda t: t.update({NORM: torch.ones(16, dtype=torch.int64)})),
        f"{NORM} is of int64, and weights are floating point",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_folder_is_refused(saved: Path, name: str) -> None:
    apply, message = BAD[name]
    apply(saved)
    with pytest.raises(FolderError) as caught:
        load(saved)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(saved))


def test_all_wrong_tensors_are_named_at_once(saved: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors.pop("norm.weight")
        tensors["more"] = torch.ones(2)
        tensors[NORM] = torch.ones(4)

    damage(change)(saved)
    with pytest.raises(FolderError) as caught:
        load(saved)
    lines = str(caught.value).splitlines()[1:]
    assert lines == ["  missing norm.weight (16,)", "  extra more (2,)", f"  {NORM} is (4,) and should be (16,)"]


def test_weights_of_another_spec(saved: Path, tmp_path: Path) -> None:
    wide = save(build(Spec.of(page(d_model=32))), tmp_path / "wide")
    (saved / "model.safetensors").write_bytes((wide / "model.safetensors").read_bytes())
    with pytest.raises(FolderError, match=r"embedding\.table\.weight is \(31, 32\) and should be \(31, 16\)") as caught:
        load(saved)
    assert str(caught.value).endswith("more")
    assert len(str(caught.value).splitlines()) == 22


def test_a_changed_spec_that_fits_is_noted(saved: Path) -> None:
    path = saved / "spec.yaml"
    path.write_text(path.read_text().replace("max_seq_len: 8", "max_seq_len: 64"))
    loaded = load(saved)
    assert loaded.spec.model.max_seq_len == 64
    assert loaded.spec.notes == (
        f"{saved / 'model.safetensors'}: the spec beside these weights was changed after they were saved",
    )


def test_a_wrong_spec_in_a_folder(saved: Path) -> None:
    path = saved / "spec.yaml"
    path.write_text(path.read_text().replace("max_seq_len", "max_sequence_len"))
    with pytest.raises(SpecError, match="did you mean 'max_seq_len'"):
        load(saved)


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FolderError, match=r"file is not a folder; a model's folder holds spec.yaml and model.safetensors"
    ):
        load(tmp_path / "file")
    with pytest.raises(FolderError, match="gone does not exist"):
        load(tmp_path / "gone")


def test_the_canonical_page_in_the_folder_is_a_page(saved: Path, model: Model) -> None:
    assert read(saved / "spec.yaml") == model.spec
