"""A family that only a file declares: in, out, and in again, the same model; by Python and by the command."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import kit
from tests.cli.runner import Kit
from transformer_kit import load
from transformer_kit.convert.declaration import read
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder
from transformer_kit.convert.importing import import_folder

__all__ = ["kit"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-family.md"
CONFIG = {
    "model_type": "heron", "vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "hidden": 48,
    "max_position_embeddings": 64, "rope_theta": 500.0, "act": "relu", "qk_norm": True,
}  # fmt: skip
LAYER = {
    "qkv": (64, 32), "o": (32, 32), "q_norm": (8,), "k_norm": (8,), "norm1": (32,), "norm2": (32,), "gate": (48, 32),
    "up": (48, 32), "down": (32, 48),
}  # fmt: skip


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """The declaration that the spec on adding families shows."""
    found = re.search(r"<!-- declaration: heron.yaml -->\n```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "heron.yaml").write_text(found[1])
    return tmp_path / "heron.yaml"


@pytest.fixture
def nest(tmp_path: Path) -> Path:
    """A folder of that family."""
    (tmp_path / "nest").mkdir()
    (tmp_path / "nest" / "config.json").write_text(json.dumps(CONFIG))
    generator = torch.Generator().manual_seed(0)
    shapes = {"tok": (50, 32), "out": (50, 32), "norm": (32,)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(2) for name, shape in LAYER.items()}
    tensors = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "nest" / "model.safetensors")
    return tmp_path / "nest"


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_in_and_out_and_in(family: Path, nest: Path, tmp_path: Path) -> None:
    declaration = read(family)
    import_folder(nest, tmp_path / "mine", declaration=declaration)
    model = load(tmp_path / "mine")
    found = export(model, tmp_path / "out", family=declaration)
    assert found.declaration.names == ["heron"]
    assert same(nest, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in CONFIG} == CONFIG
    again = load_folder(tmp_path / "out", declaration=declaration)
    assert again.spec == model.spec
    ids = torch.arange(8)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_by_the_command(kit: Kit, family: Path, nest: Path, tmp_path: Path) -> None:
    assert kit("import", nest, "mine", "--family", family).code == 0
    done = kit("export", "mine", "out", "--family", family)
    assert done.code == 0
    assert done.out.startswith(
        "out: HeronForCausalLM, float32; all tensors read back bit for bit; logits not compared: transformers"
    )
    assert same(nest, tmp_path / "out")
    assert kit("import", "out", "again", "--family", family).code == 0
    assert same(tmp_path / "mine", tmp_path / "again")


def test_a_file_that_is_wrong_or_missing(kit: Kit, family: Path, nest: Path, tmp_path: Path) -> None:
    kit("import", nest, "mine", "--family", family)
    family.write_text(family.read_text().replace("kit: 1", "kit: 7"))
    for command in (("export", "mine", "out"), ("import", nest, "out")):
        done = kit(*command, "--family", family, "--json")
        assert done.code == 2
        (error,) = done.json()["errors"]
        assert (error["line"], error["text"]) == (2, "must be 1, got 7")
        assert "cannot be read: No such file" in kit(*command, "--family", "absent.yaml").err
    assert not (tmp_path / "out").exists()
