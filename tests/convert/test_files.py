"""Files that are something else, weights that are no weights, places that cannot be: told, and nothing is left."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.convert.test_folders import PAGE, edit, edit_weights, folder, refused
from transformer_kit import Spec, build, load, save
from transformer_kit.convert import weights
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.importing import import_folder
from transformer_kit.data.tokenizer_file import load_tokenizer
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
    "no files": (b'{"weight_map": []}', "weight_map must map each tensor to a file"),
    "no names": (b'{"weight_map": {"a": 1}}', "weight_map must map each tensor to a file"),
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
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
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
    """Four vectors of DiffLlama are one tensor of ours, which has one type: the config's."""
    page = json.loads(json.dumps(PAGE))
    page["model"]["layers"]["block"]["mixer"]["type"] = "differential"
    page["model"]["norm"] = {"type": "rms_norm", "eps": 1e-5}
    model = build(Spec.of(page))
    strong_init(model)
    export(model, tmp_path / "diff", family="diffllama")
    name = "model.layers.1.self_attn.lambda_k1"
    edit_weights(tmp_path / "diff", lambda t: t.update({name: t[name].bfloat16()}))
    assert load(tmp_path / "diff").layers[1].mixer.lambdas.dtype == torch.float32


FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("part", ["lm_head", "embed_tokens", "down_proj", "layers.1", "norm"])
@pytest.mark.parametrize(
    ("one", "other", "said", "expected"),
    [
        ("F32", "BF16", "bfloat16", "bfloat16"),
        ("F32", "BF16", "torch.float16", "float16"),
        ("F16", "BF16", None, "float32"),
        ("BF16", "F64", None, "float64"),
        ("F64", "F32", "float32", "float32"),
    ],
)
def test_types_that_meet_in_a_product_become_one(
    folder: Path, tmp_path: Path, part: str, one: str, other: str, said: str | None, expected: str
) -> None:
    def mix(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({n: t.to(FLOATS[one if part in n else other]) for n, t in tensors.items()})

    edit_weights(folder, mix)
    edit(folder, lambda config: (config.pop("torch_dtype"), config.update({} if said is None else {"dtype": said})))
    came, loaded = import_folder(folder, tmp_path / "kit"), load(folder)
    kit = load(tmp_path / "kit")
    if part != "norm":
        assert expected in came.notes[0]
        assert list(loaded.spec.notes) == came.notes
    for model in (loaded, kit):
        logits = model(torch.arange(12)[None]).logits
        if part != "norm":
            assert {p.dtype for p in (logits, model.head.out.weight, model.layers[1].mixer.q.weight)} == {
                getattr(torch, expected)
            }
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), kit.parameters(), strict=True))


def test_a_kit_folder_of_several_types(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    model.head.to(torch.bfloat16)
    model.layers[0].to(torch.float16)
    save(model, tmp_path / "kit")
    loaded = load(tmp_path / "kit")
    assert "weights of bfloat16, float16, float32 are read as float32" in loaded.spec.notes[0]
    assert {p.dtype for p in loaded.parameters() if p.dim() > 1} == {torch.float32}
    loaded(torch.arange(12)[None])


def test_a_type_that_is_asked_for_is_taken_at_once(folder: Path) -> None:
    exact = load_file(folder / "model.safetensors")["lm_head.weight"]
    edit_weights(folder, lambda t: t.update({n: v.bfloat16() for n, v in t.items() if n != "lm_head.weight"}))
    edit(folder, lambda config: config.update(torch_dtype="bfloat16"))
    loaded = load(folder, dtype=torch.float32)
    assert torch.equal(loaded.head.out.weight, exact)
    assert not loaded.spec.notes


def test_weights_that_a_type_cannot_hold_are_refused(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "kit")
    for place in (folder, tmp_path / "kit"):
        edit_weights(place, lambda t: next(iter(t.values())).view(-1)[0].fill_(1e6))
        load(place, dtype=torch.bfloat16)
        with pytest.raises(ValueError, match=r"not numbers in float16|does not fit into float16:\n.*infinite"):
            load(place, dtype=torch.float16)


def test_of_two_sets_of_weights_the_single_file_is_read(folder: Path, tmp_path: Path) -> None:
    export(load(folder), tmp_path / "old", shard=4000)
    edit_weights(folder, lambda t: t["lm_head.weight"].fill_(0.5))
    assert not import_folder(folder, tmp_path / "one").notes
    for path in (tmp_path / "old").glob("model*"):
        path.rename(folder / path.name)
    came, loaded = import_folder(folder, tmp_path / "both"), load(folder)
    said = "reading model.safetensors, as transformers does, and not the shards in model.safetensors.index.json"
    assert came.notes == list(loaded.spec.notes) == [said]
    assert all((model.head.out.weight == 0.5).all() for model in (loaded, load(tmp_path / "both")))


def test_an_index_may_name_the_single_file(folder: Path, tmp_path: Path) -> None:
    names = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "consolidated.safetensors").write_bytes(b"others")
    assert not import_folder(folder, tmp_path / "kit").notes


def test_a_file_is_opened_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(path: Path, **settings: str) -> object:
        opened.append(path)
        return safe_open(path, **settings)

    monkeypatch.setattr(weights, "safe_open", counting)
    export(load(folder), tmp_path / "s", shard=4000)
    opened.clear()
    import_folder(tmp_path / "s", tmp_path / "kit")
    assert sorted(opened) == sorted((tmp_path / "s").glob("*.safetensors"))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
READ = ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "chat_template.jinja"]


@pytest.mark.parametrize("name", READ)
def test_files_that_stand_for_others(folder: Path, tmp_path: Path, name: str) -> None:
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    (folder / name).write_text(POINTER)
    message = refused(folder, tmp_path / "out")
    assert f"{name}: is a Git LFS pointer, not the file itself; `git lfs pull` fetches it" in message
    (folder / name).unlink()
    (folder / name).symlink_to("../blobs/gone")
    assert f"{name}: is a link to ../blobs/gone, which is not there" in refused(folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"is a link to .*, which is not there"):
        load(folder)


@pytest.mark.parametrize("name", ["spec.yaml", "model.safetensors", "tokenizer.json"])
def test_files_of_a_kit_folder_that_stand_for_others(folder: Path, tmp_path: Path, name: str) -> None:
    import_folder(folder, tmp_path / "kit")
    (tmp_path / "kit" / name).write_text(POINTER)
    read = load_tokenizer if name == "tokenizer.json" else load
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        read(tmp_path / "kit")
    (tmp_path / "kit" / name).unlink()
    (tmp_path / "kit" / name).symlink_to("gone")
    with pytest.raises(ValueError, match="is a link to gone, which is not there"):
        read(tmp_path / "kit")


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
def test_quantized(folder: Path, tmp_path: Path, how: object, named: str) -> None:
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
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer file"):
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


def test_a_config_of_much_more_than_the_files_hold(folder: Path, tmp_path: Path) -> None:
    edit(folder, lambda config: config.update(intermediate_size=100_000))
    told = "its files hold 8,376 parameters, but its config describes 14,405,496"
    assert told in refused(folder, tmp_path / "out")
    with pytest.raises(ConvertError, match="add the missing files"):
        load(folder)
