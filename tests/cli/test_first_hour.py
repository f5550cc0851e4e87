"""What people try in their first hour: it works, or one short message says what to do."""

from pathlib import Path

import pytest

from tests.cli.runner import CORPUS, PAGE, RUN, Kit
from transformer_kit import SpecError, build, load, load_tokenizer, read, save
from transformer_kit.train import run


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a short run."""
    (tmp_path / "corpus.txt").write_text(CORPUS)
    (tmp_path / "run.yaml").write_text(RUN)
    run(tmp_path / "run.yaml", tmp_path / "runs")
    return tmp_path / "runs"


def test_folders_stand_for_their_pages_and_models(kit: Kit, trained: Path, tmp_path: Path) -> None:
    for folder in (trained, trained / "model"):
        assert kit("check", folder).code == 0
        assert kit("explain", folder, "model.d_model").out.startswith("model.d_model = 16\n")
        assert load(folder).spec.model.d_model == 16
    (tmp_path / "empty").mkdir()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    for folder, message in (
        ("hf", "`kit import hf OUT --spec-only` makes a spec"),
        ("empty", "a folder without a spec"),
    ):
        done = kit("build", folder)
        assert (done.code, message in done.err) == (2, True)


def test_a_default_and_the_same_value_written_out_are_one_model(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    short = PAGE.replace(", d_ff: 24", "")
    long = PAGE.replace("d_ff: 24", "d_ff: 256").replace("n_heads: 2", "n_heads: 2, head_dim: 8")
    (tmp_path / "long.yaml").write_text(long)
    (tmp_path / "run.yaml").write_text(RUN.replace(PAGE, short))
    save(build(read(tmp_path / "long.yaml")), tmp_path / "long")
    save(load(tmp_path / "long"), tmp_path / "again", load_tokenizer(_tokenizer(tmp_path)))
    done = kit("train", "run.yaml", "--from", "again", "--set", "train.steps=1", "--out", "out")
    assert done.code == 0, done.err
    other = kit("check", "run.yaml", "--from", "again", "--set", "model.layers.block.ffn.d_ff=64")
    assert "d_ff: 256, now 64" in other.err


def _tokenizer(folder: Path) -> Path:
    from registry import core

    kind = core.get("tokenizer", "bytes")
    (folder / "tok").mkdir()
    kind(kind.Options()).save(folder / "tok")
    return folder / "tok"


def test_explain_without_a_path_shows_the_page(kit: Kit, page: Path) -> None:
    lines = kit("explain", page).out.splitlines()
    assert lines[0].split() == ["kit:", "1"]
    assert "  d_model: 16" in [line.rstrip() for line in lines]
    assert kit("explain", page, "--json").json()["value"]["model"]["d_model"] == 16
    assert kit("explain", page, "model.layers.block.ffn.activation").out.startswith(
        "model.layers.block.ffn.activation = silu\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train small.yaml", "describes a model, not a run; `kit new run NAME` starts a spec that does"),
        ("check small.yaml --set d_model=64", "no key 'd_model' here; did you mean 'model.d_model'?"),
        ("build small.yaml --set model.d_model 64", "--set takes PATH=VALUE"),
        ("generate runs the end", "put a prompt of several words in quotes"),
        ("list ffn mlp", "`kit show FAMILY/NAME` shows one part"),
        ("check small.yaml --set model.norm={type:rms_norm}", "YAML wants a space after a colon"),
    ],
)
def test_mistakes_of_the_first_hour(kit: Kit, page: Path, words: str, message: str) -> None:
    done = kit(*words.split())
    assert done.code == 2
    assert message in done.err


def test_in_python(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(trained), load_tokenizer(trained / "model")
    assert model.generate_text("the ", max_new_tokens=3, temperature=0.8, seed=0)
    for call, message in (
        (lambda: model.generate_text(["the "]), "the prompt must be text, got"),
        (lambda: tokenizer.encode(3), "text must be a string, got int 3"),
        (lambda: tokenizer.encode(["a"]), "text must be a string, got list"),
        (lambda: tokenizer.decode("abc"), "tokens must be a list of token ids"),
        (lambda: tokenizer.decode([-1]), "must not be negative, got -1"),
        (lambda: run(PAGE_ONLY, tmp_path / "no"), "describes a model, not a run"),
        (lambda: run(build(PAGE_ONLY, device="meta").spec, tmp_path / "no"), "describes a model"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    import torch

    assert tokenizer.decode(torch.tensor([104, 105])) == "hi"
    monkeypatch.chdir(tmp_path)
    assert run({"extends": "run.yaml", "train": {"steps": 1}}, "mapped").step == 1
    with pytest.raises(SpecError, match="describes a model"):
        run({"model": PAGE_ONLY["model"]}, "no")


PAGE_ONLY = {
    "model": {
        "vocab_size": 257,
        "d_model": 16,
        "max_seq_len": 16,
        "layers": {
            "count": 1,
            "block": {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"},
        },
    }
}
