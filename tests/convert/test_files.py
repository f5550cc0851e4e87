"""Files that are something else, weights that are no weights, places that cannot be: told, and nothing is left."""

import json
from pathlib import Path

import pytest
import torch

from tests.convert.test_folders import PAGE, edit, edit_weights, folder, refused
from transformer_kit import Spec, build, load
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.importing import import_folder
from transformer_kit.model.folder import FolderError
from transformer_kit.testing import strong_init

__all__ = ["folder"]

CONFIGS = {
    "not JSON": (b"{", "cannot be read"),
    "no mapping": (b"[]", "must be a mapping, got list"),
    "not UTF-8": (b"\xff", "not UTF-8 text: byte 0"),
    "too deep": (b"[" * 100_000, "cannot be read: nested too deeply: at most 60 levels"),
    "too large a number": (b'{"hidden_size": ' + b"1" * 10_000 + b"}", "cannot be read"),
}
INDICES = {
    "not JSON": (b"{", "cannot be read"),
    "no mapping": (b"[]", "must be a mapping, got list"),
    "too deep": (b"[" * 100_000, "cannot be read: nested too deeply: at most 60 levels"),
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


def test_parts_of_one_tensor_in_several_types(folder: Path, tmp_path: Path) -> None:
    """Four vectors of DiffLlama are one tensor of ours, which has one type."""
    page = json.loads(json.dumps(PAGE))
    page["model"]["layers"]["block"]["mixer"]["type"] = "differential"
    page["model"]["norm"] = {"type": "rms_norm", "eps": 1e-5}
    model = build(Spec.of(page))
    strong_init(model)
    export(model, tmp_path / "diff", family="diffllama")
    name = "model.layers.1.self_attn.lambda_k1"
    edit_weights(tmp_path / "diff", lambda t: t.update({name: t[name].bfloat16()}))
    message = refused(tmp_path / "diff", tmp_path / "out")
    assert f"{name}, model.layers.1.self_attn.lambda_q2" in message
    assert "are of several types (F32, BF16, F32, F32)" in message
    with pytest.raises(ConvertError, match="are of several types"):
        load(tmp_path / "diff")


def test_several_types_do_not_become_one(folder: Path, tmp_path: Path) -> None:
    """Phi-3 stores queries, keys and values together."""
    model = load(folder)
    model.layers[1].mixer.k.to(torch.bfloat16)
    with pytest.raises(
        ConvertError, match=r"layers\.1\.mixer\.k\.weight, .* are of several types, and model.*qkv_proj"
    ):
        export(model, tmp_path / "out", family="phi3")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_all_shards_that_are_cut_short_are_named(folder: Path, tmp_path: Path) -> None:
    export(load(folder), tmp_path / "s", shard=4000)
    first, second, *_ = sorted((tmp_path / "s").glob("*.safetensors"))
    for shard in (first, second):
        shard.write_bytes(shard.read_bytes()[:-100])
    message = refused(tmp_path / "s", tmp_path / "out")
    assert f"{first.name}: cannot be read as safetensors" in message
    assert f"{second.name}: cannot be read as safetensors" in message


QUANTISED = [({"quant_method": "mxfp4"}, "mxfp4"), ({"bits": 4}, "by an unnamed method"), ("fp8", "fp8")]


@pytest.mark.parametrize(("how", "named"), QUANTISED)
def test_quantised(folder: Path, tmp_path: Path, how: object, named: str) -> None:
    """Its weights are refused, with all else that is wrong; its spec needs none."""
    plain = import_folder(folder, tmp_path / "plain", spec_only=True)
    edit(folder, lambda c: c.update(quantization_config=how))
    assert import_folder(folder, tmp_path / "shape", spec_only=True).spec == plain.spec
    edit(folder, lambda c: c.update(windw=3))
    message = refused(folder, tmp_path / "out")
    assert f"quantization_config: quantized weights ({named}) cannot be read" in message
    assert "windw" in message
    with pytest.raises(ConvertError, match=f"quantized weights .{named}"):
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


OUTSIDE = (
    "config.json", "generation_config.json", "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json",
    "tokenizer.json", "model.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_that_leave_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    """Whatever the file: its content would go into the kit folder, and from there into an export."""
    outside = tmp_path / "outside"
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.write_text("{}")
    (folder / name).symlink_to(outside)
    told = f"{folder / name}: is a link that leads out of its folder, to {outside}"
    assert told in refused(folder, tmp_path / "out")
    with pytest.raises(ConvertError, match="leads out of its folder"):
        load(folder)
    with pytest.raises(ConvertError, match="leads out of its folder"):
        export(build(Spec.of(PAGE)), tmp_path / "again", beside=folder)
    assert not (tmp_path / "again").exists()


def test_links_of_a_kit_folder(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "kit")
    (tmp_path / "kit" / "generation_config.json").unlink()
    (tmp_path / "kit" / "generation_config.json").symlink_to("/etc/hostname")
    with pytest.raises(FolderError, match="is a link that leads out of its folder, to /etc/hostname"):
        load(tmp_path / "kit")


def test_the_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    """There every file is a link to a blob."""
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "main"
    blobs = snapshot.parent.parent / "blobs"
    for place in (snapshot, blobs):
        place.mkdir(parents=True)
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(i))
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    import_folder(snapshot, tmp_path / "kit")
    assert load(tmp_path / "kit").state_dict().keys() == load(snapshot).state_dict().keys()
