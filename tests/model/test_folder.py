"""A model's folder: saved whole or not at all, loaded bit for bit or refused with a reason."""

import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry import core
from registry.contracts import FFN, Site
from transformer_kit.model import folder as folders
from transformer_kit.model.build import build
from transformer_kit.model.folder import FolderError, load, save
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec, Spec

BLOCK = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": {"type": "gated", "d_ff": 24}}
SIZES = {"vocab_size": 31, "d_model": 16, "max_seq_len": 8, "position": "rope"}
IDS = torch.tensor([[1, 5, 30, 0, 7]])


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


def test_what_is_loaded_is_what_was_saved(model: Model, saved: Path) -> None:
    loaded = load(saved)
    assert loaded.spec == model.spec
    assert loaded.spec.notes == ()
    assert not loaded.training
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert all(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in saved.iterdir()) == ["model.safetensors", "spec.yaml"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_type_of_weights_is_kept(model: Model, tmp_path: Path, dtype: torch.dtype) -> None:
    model.to(dtype)
    loaded = load(save(model, tmp_path / "saved"))
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), loaded.parameters(), strict=True))


def test_another_type_on_request(saved: Path) -> None:
    assert {p.dtype for p in load(saved, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_a_device_on_request(saved: Path) -> None:
    assert {p.device.type for p in load(saved, device=torch.device("cpu")).parameters()} == {"cpu"}


def test_a_tied_model_stays_tied(tmp_path: Path) -> None:
    model = build(Spec.of(page(head={"type": "lm", "tied": True}))).eval()
    loaded = load(save(model, tmp_path / "saved"))
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())


def test_it_trains_on_as_the_saved_one_does(model: Model, saved: Path) -> None:
    for each in (model, load(saved)):
        each.train()(IDS, IDS).loss.backward()
    gradients = [p.grad for p in model.parameters()]
    again = load(saved)
    again.train()(IDS, IDS).loss.backward()
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, again.parameters(), strict=True))


def test_what_a_part_computes_is_not_saved_and_comes_back(tmp_path: Path) -> None:
    with core.scope():

        @core.register("my.scaled")
        class Scaled(FFN):
            def __init__(self, options: Any, site: Site) -> None:
                super().__init__(options, site)
                self.register_buffer("scale", torch.empty(site.d_model), persistent=False)
                self.reset_parameters()

            def reset_parameters(self) -> None:
                torch.arange(len(self.scale), out=self.scale)

            def forward(self, x: Tensor) -> Tensor:
                return x * self.scale

        model = build(Spec.of(page(layers={"count": 1, "block": {**BLOCK, "ffn": "my.scaled"}}))).eval()
        loaded = load(save(model, tmp_path / "saved"))
        assert "scale" not in (tmp_path / "saved" / "model.safetensors").read_bytes().decode("latin1")[:2000]
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_the_page_of_a_run_leaves_its_architecture(tmp_path: Path) -> None:
    run = RunSpec.of({**page(), "optimizer": {"type": "adamw", "lr": 1e-5}, "train": {"steps": 1}})
    loaded = load(save(build(run), tmp_path / "saved"))
    assert loaded.spec == Spec.of(page())
    assert loaded.spec.notes == ()


def test_a_model_loaded_with_small_numbers_in_its_spec(tmp_path: Path) -> None:
    norm = {"type": "rms_norm", "eps": 1e-05}
    assert load(save(build(Spec.of(page(norm=norm))), tmp_path / "saved")).spec.model.norm.eps == 1e-5


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(model: Model, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        saved = save(model, tmp_path / "saved")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in saved.iterdir()}
    assert modes == {0o666 & ~mask}
    assert stat.S_IMODE(saved.stat().st_mode) == 0o777 & ~mask


def test_everything_is_on_disk_before_it_appears(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def moved(source: Path, target: Path) -> None:
        seen.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    save(model, tmp_path / "saved")
    assert {"model.safetensors", "spec.yaml"} < set(seen[: seen.index("rename")])
    assert seen[-1] == tmp_path.name


def test_a_folder_that_holds_something_is_left_alone(model: Model, saved: Path, tmp_path: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(FolderError, match="saved exists and is not empty; choose another name"):
        save(build(Spec.of(page())), saved)
    assert (saved / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FolderError, match="file exists and is not a folder; choose another name"):
        save(model, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_used(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert save(model, "empty") == Path("empty")
    assert load("empty").spec == model.spec


def test_folders_on_the_way_are_made(model: Model, tmp_path: Path) -> None:
    assert load(save(model, tmp_path / "a" / "b" / "c")).spec == model.spec


def test_no_permission(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FolderError, match="cannot be written: Not a directory"):
        save(model, tmp_path / "file" / "saved")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user writes everywhere")
    with pytest.raises(FolderError, match="locked/saved cannot be written: Permission denied"):
        save(model, locked / "saved")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("odd")])
def test_an_interrupted_write_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(folders, "save_file", fail)
    expected = FolderError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="No space left on device" if expected is FolderError else None):
        save(model, tmp_path / "new" / "saved")
    assert list(tmp_path.iterdir()) == []


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
