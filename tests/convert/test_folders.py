"""Folders in and out: what comes in goes out the same, and what is wrong is told, all at once, with nothing written."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from transformer_kit import Spec, build, load, read, save
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder
from transformer_kit.convert.importing import import_folder
from transformer_kit.testing import strong_init

PAGE = {
    "model": {
        "vocab_size": 40,
        "d_model": 24,
        "max_seq_len": 32,
        "position": "rope",
        "norm": "rms_norm",
        "layers": {
            "count": 2,
            "block": {
                "type": "pre_norm",
                "mixer": {"type": "attention", "n_heads": 4, "n_kv_heads": 2},
                "ffn": {"type": "gated", "d_ff": 20},
            },
        },
    }
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Llama's folder."""
    model = build(Spec.of(PAGE))
    strong_init(model)
    export(model, tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path, out: Path) -> str:
    with pytest.raises(ConvertError) as caught:
        import_folder(folder, out)
    assert not out.exists()
    assert not [p for p in out.parent.iterdir() if p.name.startswith(".out")]
    return str(caught.value)


def test_threads_are_as_before(folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        import_folder(folder, tmp_path / "kit")
        edit_weights(folder, lambda t: t["model.norm.weight"].fill_(float("nan")))
        refused(folder, tmp_path / "out")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_round_trip_is_bit_equal(folder: Path, tmp_path: Path) -> None:
    came = import_folder(folder, tmp_path / "kit")
    model = load(tmp_path / "kit")
    export(model, tmp_path / "again")
    assert came.family == "llama"
    first, second = load_file(folder / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((folder / "config.json").read_text()) == json.loads((tmp_path / "again/config.json").read_text())


SHORT = """\
# From a Hugging Face folder: llama (LlamaForCausalLM).
# 8,376 parameters. Omitted options have their defaults.
kit: 1
model:
  vocab_size: 40
  d_model: 24
  max_seq_len: 32
  position: rope
  norm: rms_norm
  layers:
    count: 2
    block:
      type: pre_norm
      mixer:
        type: attention
        n_heads: 4
        n_kv_heads: 2
      ffn:
        type: gated
        d_ff: 20
"""


def test_the_spec_is_short_and_means_the_same(folder: Path, tmp_path: Path) -> None:
    came = import_folder(folder, tmp_path / "kit", spec_only=True)
    assert (tmp_path / "kit" / "spec.yaml").read_text() == SHORT
    assert read(tmp_path / "kit" / "spec.yaml").hash == came.spec.hash == Spec.of(PAGE).hash
    assert not (tmp_path / "kit" / "model.safetensors").exists()


def test_all_layers_are_counted_also_without_gradients(tmp_path: Path) -> None:
    page = json.loads(json.dumps(PAGE))
    page["model"]["layers"]["count"] = 6
    page["model"]["head"] = {"type": "lm", "tied": True}
    page["model"]["layers"]["kinds"] = {"local": {"mixer": {"window": 8}}}
    page["model"]["layers"]["pattern"] = ["local*2", "block"]
    model = build(Spec.of(page))
    export(model, tmp_path / "hf")
    with torch.inference_mode():
        import_folder(tmp_path / "hf", tmp_path / "kit")
    count = sum(p.numel() for p in model.parameters())
    assert f"# {count:,} parameters." in (tmp_path / "kit" / "spec.yaml").read_text()


@pytest.mark.parametrize("said", [4, None])
def test_heads_that_are_as_they_would_be_are_left_out(folder: Path, tmp_path: Path, said: int | None) -> None:
    edit(folder, lambda c: c.update(num_key_value_heads=said, head_dim=6))
    came = import_folder(folder, tmp_path / "kit", spec_only=True)
    text = (tmp_path / "kit" / "spec.yaml").read_text()
    assert "n_kv_heads" not in text
    assert "head_dim" not in text
    edit(folder, lambda c: c.update(num_key_value_heads=2, head_dim=8))
    import_folder(folder, tmp_path / "other", spec_only=True)
    other = (tmp_path / "other" / "spec.yaml").read_text()
    assert "n_kv_heads: 2" in other
    assert "head_dim: 8" in other
    assert read(tmp_path / "kit" / "spec.yaml").hash == came.spec.hash


@pytest.mark.parametrize(
    "classes", [["A\nkit: 7"], ["A\u2028kit: 7"], ["\x1b[2J"], [1], "A", {"a": 1}, [], ["A" * 500]]
)
def test_what_a_config_names_stays_in_the_comment(folder: Path, tmp_path: Path, classes: object) -> None:
    edit(folder, lambda c: c.update(architectures=classes))
    came = import_folder(folder, tmp_path / "kit", spec_only=True)
    assert read(tmp_path / "kit" / "spec.yaml").hash == came.spec.hash == Spec.of(PAGE).hash
    lines = (tmp_path / "kit" / "spec.yaml").read_text().split("\n")
    assert [line[:2] for line in lines[:3]] == ["# ", "# ", "ki"]
    assert max(map(len, lines)) < 200


def test_shards_with_an_index_are_one_model(folder: Path, tmp_path: Path) -> None:
    model = load_folder(folder)
    export(model, tmp_path / "sharded", shard=4000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    again = load(tmp_path / "sharded")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_what_no_class_computes_is_refused(tmp_path: Path) -> None:
    page = json.loads(json.dumps(PAGE))
    page["model"]["layers"]["block"]["type"] = "norm_residual"
    with pytest.raises(ConvertError, match="no Hugging Face class") as caught:
        export(build(Spec.of(page)), tmp_path / "out", family="llama")
    assert caught.value.problems[1] == "llama: model.layers.blocks.0.type is 'norm_residual', not 'pre_norm'"
    page["model"]["layers"]["block"]["type"] = "pre_norm"
    page["model"]["layers"]["block"]["mixer"]["window"] = 8
    with pytest.raises(ConvertError, match=r"llama: layers.0.mixer.window is 8, not None"):
        export(build(Spec.of(page)), tmp_path / "out", family="llama")
    assert not (tmp_path / "out").exists()


TEXT = """\
kit: 1
model:
  vocab_size: 40
  d_model: 24
  max_seq_len: 32
  position: rope
  norm: rms_norm
  layers:
    count: 2
    block:
      mixer: {type: attention, n_heads: 4}
      type: pre_norm
      ffn: {type: gated, d_ff: 20}
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "told"),
    [
        (
            "{type: attention, n_heads: 4}",
            "{type: attention, n_heads: 4, output_gate: headwise}",
            "11:44",
            "output_gate",
        ),
        ("norm: rms_norm", "norm: layer_norm", "7:3", "layers.0.mixer_norm is 'layer_norm', not 'rms_norm'"),
        ("position: rope", "position: {type: sinusoidal}", "6:3", "position is 'sinusoidal', not"),
        ("type: pre_norm", "type: sandwich", "12:7", "model.layers.blocks.0.type is 'sandwich', not 'pre_norm'"),
        ("vocab_size: 40", "vocab_size: 40\n  head: {type: lm, softcap: 5.0}", "4:20", "head.softcap is 5.0, not None"),
    ],
)
def test_a_refusal_cites_the_line(old: str, new: str, place: str, told: str, tmp_path: Path) -> None:
    assert TEXT.count(old) == 1
    (tmp_path / "odd.yaml").write_text(TEXT.replace(old, new))
    model = build(read(tmp_path / "odd.yaml"))
    with pytest.raises(ConvertError) as caught:
        export(model, tmp_path / "out", family="llama")
    ((_, line),) = [caught.value.problems]
    assert line.startswith(f"{tmp_path / 'odd.yaml'}:{place}: llama: ")
    assert told in line


def test_a_refusal_names_the_nearest_families(tmp_path: Path) -> None:
    """Mistral has windows, and nothing bounds its scores."""
    (tmp_path / "odd.yaml").write_text(TEXT.replace("n_heads: 4", "n_heads: 4, window: 8, softcap: 3.0"))
    save(build(read(tmp_path / "odd.yaml")), tmp_path / "odd")
    with pytest.raises(ConvertError) as caught:
        export(load(tmp_path / "odd"), tmp_path / "out")
    what, *nearest = caught.value.problems
    assert what == "no Hugging Face class computes this model exactly; nearest come"
    assert len(nearest) == 2
    assert "mistral: layers.0.mixer.softcap is 3.0, not None" in nearest[0]
    assert nearest[0].startswith(f"{tmp_path / 'odd' / 'spec.yaml'}:")


def test_a_family_that_is_not_declared(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="no family 'mistrl' is declared; did you mean 'mistral'"):
        export(load(folder), tmp_path / "out", family="mistrl")


def test_no_config(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "holds no config.json" in refused(tmp_path / "in", tmp_path / "out")


def test_unknown_family(folder: Path, tmp_path: Path) -> None:
    edit(folder, lambda c: c.update(model_type="lama"))
    message = refused(folder, tmp_path / "out")
    assert "'lama' has no declaration; did you mean 'llama'" in message
    assert "--family" in message


def test_unknown_keys_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    edit(folder, lambda c: c.update(windw=3, secret=True))
    message = refused(folder, tmp_path / "out")
    assert "windw" in message
    assert "secret" in message


def test_all_that_is_wrong_with_tensors_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.extra.weight"] = torch.zeros(3)
        tensors["model.layers.0.input_layernorm.weight"] = torch.zeros(5)
        tensors["model.layers.1.input_layernorm.weight"].fill_(float("nan"))
        tensors["lm_head.weight"][0, 0] = float("inf")

    edit_weights(folder, spoil)
    message = refused(folder, tmp_path / "out")
    assert "missing model.norm.weight" in message
    assert "model.extra.weight (3,) has no place" in message
    assert "mixer_norm.weight as (5,), not (24,)" in message
    assert "model.layers.1.input_layernorm.weight holds values that are not numbers" in message
    assert "lm_head.weight holds values that are not numbers" in message
    with pytest.raises(ConvertError) as caught:
        load(folder)
    assert sorted(caught.value.problems) == sorted(line.strip() for line in message.splitlines()[1:])


def test_all_tensors_of_the_wrong_shape_or_value_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = torch.zeros(5)
        tensors["model.layers.1.input_layernorm.weight"].fill_(float("nan"))

    edit_weights(folder, spoil)
    message = refused(folder, tmp_path / "out")
    assert "norm.weight as (5,), not (24,)" in message
    assert "model.layers.1.input_layernorm.weight holds values that are not numbers" in message


def test_large_values_are_numbers(folder: Path, tmp_path: Path) -> None:
    """Their sum overflows."""
    edit_weights(folder, lambda t: t["lm_head.weight"].fill_(3e38))
    import_folder(folder, tmp_path / "out")


def test_truncated_shard(folder: Path, tmp_path: Path) -> None:
    export(load_folder(folder), tmp_path / "s", shard=4000)
    shard = sorted((tmp_path / "s").glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    message = refused(tmp_path / "s", tmp_path / "out")
    assert f"{shard.name}: cannot be read as safetensors" in message


def test_truncated(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read as safetensors" in refused(folder, tmp_path / "out")


def test_index_that_disagrees_or_leaves_the_folder(folder: Path, tmp_path: Path) -> None:
    export(load_folder(folder), tmp_path / "s", shard=4000)
    index = tmp_path / "s" / "model.safetensors.index.json"
    page = json.loads(index.read_text())
    name = next(iter(page["weight_map"]))
    good = page["weight_map"][name]
    page["weight_map"][name] = "../hf/model.safetensors"
    index.write_text(json.dumps(page))
    assert "outside the folder" in refused(tmp_path / "s", tmp_path / "out")
    page["weight_map"][name] = next(
        v for v in page["weight_map"].values() if v not in (good, "../hf/model.safetensors")
    )
    index.write_text(json.dumps(page))
    assert f"{name} is not in" in refused(tmp_path / "s", tmp_path / "out")
    page["weight_map"][name] = good
    shared = next(v for v in page["weight_map"].values() if list(page["weight_map"].values()).count(v) > 1)
    other = next(n for n, v in page["weight_map"].items() if v == shared)
    index.write_text(json.dumps({"weight_map": {n: v for n, v in page["weight_map"].items() if n != other}}))
    assert f"{other} is in {shared}, where model.safetensors.index.json does not place it" in refused(
        tmp_path / "s", tmp_path / "out"
    )
    page["weight_map"][name] = "model-9.safetensors"
    index.write_text(json.dumps(page))
    assert "model-9.safetensors, which model.safetensors.index.json names, is missing" in refused(
        tmp_path / "s", tmp_path / "out"
    )


def test_a_pickle_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refused(folder, tmp_path / "out")
    assert "pytorch_model.bin is a pickle" in message
    assert "convert it to safetensors" in message


def test_claimed_tied_and_is_not(folder: Path, tmp_path: Path) -> None:
    edit(folder, lambda c: c.update(tie_word_embeddings=True))
    assert "the two differ" in refused(folder, tmp_path / "out")


def test_existing_folder_is_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(ConvertError, match="exists and is not empty"):
        import_folder(folder, out)
    assert (out / "mine").read_text() == "x"


def test_existing_file_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConvertError, match="exists and is not empty"):
        import_folder(folder, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("how", [KeyboardInterrupt, OSError])
def test_interrupted(how: type[BaseException], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While weights are being brought to disk."""

    def stop(descriptor: int) -> None:
        raise how

    monkeypatch.setattr("transformer_kit.convert.stream.os.fsync", stop)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(how):
        import_folder(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_killed(folder: Path, tmp_path: Path) -> None:
    """Nothing under the name of the folder, and nothing in the way of the next import."""
    code = """
import os, signal, sys
from transformer_kit.convert import importing
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
importing.import_folder(sys.argv[1], sys.argv[2])
"""
    done = subprocess.run([sys.executable, "-c", code, folder, tmp_path / "out"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    import_folder(folder, tmp_path / "out")
    load(tmp_path / "out")


def test_tokenizer_larger_than_the_embedding(folder: Path, tmp_path: Path) -> None:
    from registry import core

    core.get("tokenizer", "bytes")(core.get("tokenizer", "bytes").Options()).save(folder)
    assert "257 ids, more than the model's vocab_size (40)" in refused(folder, tmp_path / "out")


def test_a_family_from_outside_the_package(folder: Path, tmp_path: Path) -> None:
    from transformer_kit.convert.declaration import FOLDER
    from transformer_kit.convert.declaration import read as declaration

    text = (FOLDER / "llama.yaml").read_text().replace("names: [llama]", "names: [cousin]")
    (tmp_path / "cousin.yaml").write_text(text)
    edit(folder, lambda c: c.update(model_type="cousin"))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    came = import_folder(folder, tmp_path / "out", declaration=declaration(tmp_path / "cousin.yaml"))
    assert came.family == "cousin"
