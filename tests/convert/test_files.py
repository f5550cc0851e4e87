"""Files that are something else, weights that are no weights, places that cannot be: told, and nothing is left."""

import json
from pathlib import Path

import pytest
import torch

from tests.convert.test_folders import edit_weights, folder, refused
from transformer_kit import load
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.importing import import_folder

__all__ = ["folder"]

CONFIGS = {
    "not JSON": (b"{", "cannot be read"),
    "no mapping": (b"[]", "must be a mapping, got list"),
    "not UTF-8": (b"\xff", "cannot be read"),
    "too deep": (b"[" * 100_000, "cannot be read"),
    "too large a number": (b'{"hidden_size": ' + b"1" * 10_000 + b"}", "cannot be read"),
}
INDICES = {
    "not JSON": (b"{", "cannot be read"),
    "no mapping": (b"[]", "cannot be read"),
    "too deep": (b"[" * 100_000, "cannot be read"),
    "no files": (b'{"weight_map": []}', "weight_map must give a file for each tensor"),
    "no names": (b'{"weight_map": {"a": 1}}', "weight_map must give a file for each tensor"),
    "elsewhere": (b'{"weight_map": {"a": "/etc/hostname"}}', "names /etc/hostname, outside the folder"),
    "empty": (b'{"weight_map": {}}', "missing lm_head.weight"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_configs(folder: Path, tmp_path: Path, what: str) -> None:
    content, message = CONFIGS[what]
    (folder / "config.json").write_bytes(content)
    assert message in refused(folder, tmp_path / "out")


@pytest.mark.parametrize("what", INDICES)
def test_indices(folder: Path, tmp_path: Path, what: str) -> None:
    content, message = INDICES[what]
    (folder / "model.safetensors.index.json").write_bytes(content)
    assert message in refused(folder, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a torch archive", b"\x80\x02 a pickle"])
def test_weights_that_are_something_else(folder: Path, tmp_path: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot be read as safetensors" in refused(folder, tmp_path / "out")


def test_types_that_are_no_weights_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    """Eight bits need scales, and whole numbers would come in and could not be trained or loaded."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
        tensors["lm_head.weight"] = tensors["lm_head.weight"].long()

    edit_weights(folder, spoil)
    message = refused(folder, tmp_path / "out")
    assert "model.norm.weight is of F8_E4M3; weights are F64, F32, F16, BF16" in message
    assert "lm_head.weight is of I64" in message
    with pytest.raises(ConvertError, match=r"lm_head\.weight is of I64"):
        load(folder)


def test_a_tokenizer_that_is_none(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer's file"):
        import_folder(folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_no_folder_is_left_of_those_made_on_the_way(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConvertError, match=r"holds neither model\.safetensors"):
        import_folder(folder, tmp_path / "a" / "b" / "c")
    model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ConvertError, match="not numbers"):
        export(model, tmp_path / "a" / "b" / "c")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_folder_below_a_file(folder: Path) -> None:
    place = folder / "config.json" / "out"
    with pytest.raises(ConvertError, match="out: cannot be made: "):
        import_folder(folder, place)
    with pytest.raises(ConvertError, match="out: cannot be made: "):
        export(load(folder), place)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


def test_others_may_read_an_export(folder: Path) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    assert weights.stat().st_mode == config.stat().st_mode
