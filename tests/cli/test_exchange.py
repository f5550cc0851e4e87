"""`kit import` and `kit export`: what they say, what they return, and that a refusal leaves nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry import core
from tests.cli.runner import CORPUS, PAGE, RUN, Kit
from transformer_kit import build, read, save
from transformer_kit.convert import check
from transformer_kit.testing import strong_init

LLAMA = PAGE.replace("  position: rope\n", "  position: rope\n  norm: {type: rms_norm, eps: 1e-6}\n")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A kit folder of a model that is a Llama."""
    (tmp_path / "llama.yaml").write_text(LLAMA)
    model = build(read(tmp_path / "llama.yaml"))
    strong_init(model)
    kind = core.get("tokenizer", "bytes")
    return save(model, tmp_path / "mine", kind(kind.Options()))


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_export_says_how_far_transformers_is_off(kit: Kit, mine: Path) -> None:
    pytest.importorskip("transformers")
    done = kit("export", mine, "out")
    assert done.code == 0
    assert done.out.startswith(
        "out: LlamaForCausalLM, float32; all tensors read back bit for bit; largest difference of"
    )
    assert done.err == ""
    again = kit("export", mine, "again", "--json").json()
    assert 0 <= again.pop("difference") <= 2e-5
    assert again == {
        "folder": "again", "family": "llama", "class": "LlamaForCausalLM", "dtype": "float32", "why_not": ""
    }  # fmt: skip


def test_export_in_another_type(kit: Kit, mine: Path) -> None:
    done = kit("export", mine, "half", "--dtype", "bfloat16", "--no-compare")
    assert done.out.startswith("half: LlamaForCausalLM, bfloat16; all tensors read back bit for bit")
    assert json.loads(Path("half/config.json").read_text())["torch_dtype"] == "bfloat16"
    weights = load_file("half/model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    kit("export", mine, "whole", "--no-compare")
    assert all(torch.equal(t.bfloat16(), weights[n]) for n, t in load_file("whole/model.safetensors").items())
    assert "--dtype must be one of" in kit("export", mine, "other", "--dtype", "int8").err


def test_a_hugging_face_folder_is_trained_further_with_or_without_a_model_on_the_page(
    kit: Kit, mine: Path, tmp_path: Path
) -> None:
    assert kit("export", mine, "hf", "--no-compare").code == 0
    (tmp_path / "corpus.txt").write_text(CORPUS)
    (tmp_path / "more.yaml").write_text(RUN.removeprefix(PAGE))
    (tmp_path / "same.yaml").write_text("extends: more.yaml\nmodel: {extends: llama.yaml}\n")
    alone = kit("check", "more.yaml")
    assert "needs 'model': the architecture; `--from DIR` takes that of a trained folder" in alone.err
    assert kit("check", "more.yaml", "same.yaml", "--from", "hf").out == "more.yaml, same.yaml: good\n"
    other = kit("check", "same.yaml", "--from", "hf", "--set", "model.d_model=32")
    assert (other.code, "model.d_model: 16, now 32" in other.err) == (2, True)
    for page in ("more", "same"):
        done = kit("train", f"{page}.yaml", "--from", "hf", "--set", "train.steps=1", "--out", page)
        assert done.code == 0, done.err
    before, after = (load_file(f / "model.safetensors") for f in (mine, tmp_path / "more" / "model"))
    assert before.keys() == after.keys()
    assert 0 < max(float((before[name] - after[name]).abs().max()) for name in before) < 0.01
    assert kit("train", "more.yaml", "--out", "more", "--resume", "--set", "train.steps=2").code == 0
    nothing = kit("check", "more.yaml", "--from", tmp_path)
    assert "holds neither spec.yaml nor config.json" in nothing.err


def test_export_that_is_not_to_be_compared(kit: Kit, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(check, "_theirs", lambda *a: pytest.fail("it was compared"))
    told = kit("export", mine, "out", "--no-compare", "--json").json()
    assert (told["difference"], told["why_not"]) == (None, "not asked for")


def test_export_of_narrow_weights_is_compared_in_float32(kit: Kit, mine: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformer_kit import load

    save(load(mine, dtype=torch.bfloat16), tmp_path / "narrow")
    assert kit("export", "narrow", "out", "--json").json()["difference"] <= 2e-5
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("as_json", [False, True])
def test_export_that_transformers_computes_otherwise(
    kit: Kit, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    pytest.importorskip("transformers")
    theirs = check._theirs
    monkeypatch.setattr(check, "_theirs", lambda *a: theirs(*a) + 1e-3)
    before = files(tmp_path)
    done = kit("export", mine, "deep/out", *(["--json"] if as_json else []))
    assert done.code == 2
    text = done.json()["errors"][0]["text"] if as_json else done.err
    assert "LlamaForCausalLM" in text
    assert "gives other logits: the largest difference is 0.001, rounding" in text
    assert files(tmp_path) == before


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_agreement(
    kit: Kit, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    pytest.importorskip("transformers")
    theirs = check._theirs
    monkeypatch.setattr(check, "_theirs", lambda *a: theirs(*a) * number)
    assert kit("export", mine, "out").code == 2
    assert not (tmp_path / "out").exists()


def test_export_that_transformers_cannot_load(
    kit: Kit, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")

    def fails(*args: object) -> torch.Tensor:
        raise KeyError("hidden_size")

    monkeypatch.setattr(check, "_theirs", fails)
    done = kit("export", mine, "out")
    assert done.code == 2
    assert "fails on it: KeyError: 'hidden_size'" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_export_without_transformers(kit: Kit, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    assert "logits not compared: transformers is not installed" in kit("export", mine, "out").out
    said = kit("export", mine, "again", "--json").json()
    assert (said["difference"], said["why_not"]) == (None, "transformers is not installed")


def test_a_refusal_has_lines(kit: Kit, tmp_path: Path) -> None:
    """Of the spec in the folder: nothing bounds the scores of a Llama."""
    (tmp_path / "odd.yaml").write_text(LLAMA.replace("n_heads: 2", "n_heads: 2, softcap: 3.0"))
    save(build(read(tmp_path / "odd.yaml")), tmp_path / "odd")
    done = kit("export", "odd", "out", "--json")
    assert done.code == 2
    what, first, second = done.json()["errors"]
    assert (what["file"], what["text"]) == (
        "odd/spec.yaml",
        "no Hugging Face class computes this model exactly; nearest come",
    )
    lines = (tmp_path / "odd" / "spec.yaml").read_text().splitlines()
    assert all("softcap: 3.0" in lines[one["line"] - 1] for one in (first, second))
    assert first["text"] == "llama: layers.0.mixer.softcap is 3.0, not None"
    text = kit("export", "odd", "out").err
    assert f"odd/spec.yaml:{first['line']}:" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_import_names_the_config_that_is_wrong(kit: Kit, mine: Path, tmp_path: Path) -> None:
    kit("export", mine, "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for change in ({"windw": 3}, {"num_attention_heads": 0}, {"model_type": "lama"}):
        (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, **change}))
        done = kit("import", "hf", "out")
        assert done.code == 2
        assert done.err.startswith("error: hf/config.json: ")
        assert next(iter(change)) in done.err
    assert not (tmp_path / "out").exists()


def test_export_over_something(kit: Kit, mine: Path, tmp_path: Path) -> None:
    done = kit("export", mine, "mine")
    assert done.code == 2
    assert "exists and is not empty" in done.err
    assert files(tmp_path / "mine") == ["model.safetensors", "spec.yaml", "tokenizer.json", "tokenizer_config.json"]


def test_import_says_what_it_took_and_what_not(kit: Kit, mine: Path, tmp_path: Path) -> None:
    kit("export", mine, "hf")
    for name in ("README.md", "modeling_llama.py", ".gitattributes"):
        (tmp_path / "hf" / name).write_text("text")
    done = kit("import", "hf", "back")
    lines = ["back: llama, 21 tensors; see back/spec.yaml", "not taken: README.md, modeling_llama.py"]
    assert (done.code, done.out.splitlines(), done.err) == (0, lines, "")
    said = kit("import", "hf", "again", "--json").json()
    assert (said["not_taken"], said["tokenizer"], said["note"]) == (["README.md", "modeling_llama.py"], True, None)


def test_import_of_the_spec_alone_does_not_count_weights_as_left(kit: Kit, mine: Path) -> None:
    kit("export", mine, "hf")
    assert kit("import", "hf", "shape", "--spec-only", "--json").json()["not_taken"] == []


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json"])
def test_a_tokenizer_that_is_not_read_is_told(kit: Kit, mine: Path, tmp_path: Path, name: str) -> None:
    kit("export", mine, "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    (tmp_path / "hf" / name).write_bytes(b"\x0a\x0e")
    done = kit("import", "hf", "back")
    assert "21 tensors, no tokenizer; see" in done.out
    assert f"not taken: {', '.join(sorted([name, 'tokenizer_config.json']))}" in done.out
    assert f"note: {name} is not read, so the model has no tokenizer; what is read is tokenizer.json" in done.err
    said = kit("import", "hf", "again", "--json").json()
    assert said["tokenizer"] is False
    assert name in said["note"]


def test_what_the_folder_says_of_the_tokenizer_goes_through(kit: Kit, mine: Path, tmp_path: Path) -> None:
    """Chat template, the token that ends, how to generate: byte for byte, in and out."""
    kit("export", mine, "hf")
    texts = {
        "tokenizer_config.json": {"chat_template": "{{ messages }}", "eos_token": {"content": "<|endoftext|>"}},
        "special_tokens_map.json": {"eos_token": "<|endoftext|>"},
        "generation_config.json": {"eos_token_id": [256, 3], "temperature": 0.6},
    }
    for name, page in texts.items():
        (tmp_path / "hf" / name).write_text(json.dumps(page))
    (tmp_path / "hf" / "chat_template.jinja").write_text("{{ messages[0] }}")
    assert kit("import", "hf", "back").code == 0
    assert kit("export", "back", "out").code == 0
    for name in (*texts, "chat_template.jinja", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes(), name
    assert files(tmp_path / "out") == files(tmp_path / "hf")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 256
