"""A model's folder: saved whole or not at all, loaded bit for bit or refused with a reason."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from registry import core
from registry.context import Context
from registry.contracts import FFN, Site
from transformer_kit.model import folder as folders
from transformer_kit.model.build import build
from transformer_kit.model.folder import FolderError, load, save
from transformer_kit.model.model import Model
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

            def reset_parameters(self, generator: torch.Generator | None = None) -> None:
                torch.arange(len(self.scale), out=self.scale)

            def forward(self, x: Tensor, context: Context) -> Tensor:
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
