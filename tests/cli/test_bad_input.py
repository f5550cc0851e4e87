"""Whatever is wrong with a spec, a run or a prompt: one clear message, the right exit code, and nothing written."""

import json
from pathlib import Path

import pytest

from tests.cli.runner import PAGE, RUN, Kit

LEVELS = [f"{c}: &{c} [{', '.join([f'*{before}'] * 9)}]\n" for before, c in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = "a: &a [x, x]\n" + "".join(LEVELS)
ALIBI = "position: {type: alibi, theta: 1.0}"
JSONL = RUN.replace("type: text, paths: [corpus.txt]", "type: jsonl, paths: [broken.jsonl]")
PAGES = {
    "misspelled key": (PAGE.replace("d_ff", "d_f"), "did you mean 'd_ff'?"),
    "misspelled part": (PAGE.replace("rope", "ropee"), "did you mean 'rope'?"),
    "option of another part": (PAGE.replace("position: rope", ALIBI), "belongs to 'rope'"),
    "part of another family": (PAGE.replace("rope", "gated"), "'gated' is a part of ffn"),
    "heads and kv heads": (PAGE.replace("n_heads: 2", "n_heads: 8, n_kv_heads: 3"), "n_kv_heads (3), got 8"),
    "heads and d_model": (PAGE.replace("n_heads: 2", "n_heads: 3"), "must divide d_model (16), got 3"),
    "odd rotary width": (PAGE.replace("n_heads: 2", "n_heads: 2, head_dim: 7"), "at most head_dim (7), got 7"),
    "window 0": (PAGE.replace("n_heads: 2", "n_heads: 2, window: 0"), "must be at least 1, got 0"),
    "negative size": (PAGE.replace("d_model: 16", "d_model: -16"), "must be at least 1, got -16"),
    "text for a number": (PAGE.replace("d_model: 16", "d_model: wide"), "must be a whole number, got 'wide'"),
    "fraction for a whole number": (PAGE.replace("d_model: 16", "d_model: 16.5"), "must be a whole number, got 16.5"),
    "truth for a number": (PAGE.replace("count: 2", "count: true"), "must be a whole number"),
    "duplicate key": (PAGE + "kit: 1\n", "'kit' is written twice"),
    "tab": (PAGE.replace("  d_model", "\td_model"), "not YAML"),
    "broken YAML": ("model: {d_model: [1\n", "not YAML"),
    "empty": ("", "the spec is empty"),
    "list at the top": ("- 1\n", "must be a mapping"),
    "unknown version": (PAGE.replace("kit: 1", "kit: 9"), "version"),
    "absurd size": (PAGE.replace("d_model: 16", "d_model: 1000000000000"), "at most"),
    "unknown kind": (PAGE + "    pattern: [local]\n", "no kind 'local'"),
    "count and pattern": (PAGE + "    pattern: [block*3]\n", "multiple of the pattern's length"),
    "at out of range": (PAGE + "    at: {9: {}}\n", "must be a layer from -2 to 1"),
    "missing parent": ("extends: nothing.yaml\n", "'nothing.yaml'"),
    "circle": ("extends: page.yaml\n", "circle"),
    "parent outside": ("extends: ../../../../../../etc/passwd.yaml\n", "outside"),
    "plugin not installed": (PAGE + "plugins: [acme]\n", "'acme' is not installed"),
    "not UTF-8": (b"kit: \xff\n", "not UTF-8"),
    "alias bomb": (BOMB, "too large"),
    "depth bomb": ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("what", PAGES)
def test_bad_pages(kit: Kit, tmp_path: Path, what: str) -> None:
    text, message = PAGES[what]
    page = tmp_path / "page.yaml"
    page.write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in (["check"], ["build"], ["train"]):
        done = kit(command[0], page, *command[1:])
        assert (done.code, done.out) == (2, ""), command
        assert message in done.err or command == ["train"]
        assert "Traceback" not in done.err
        assert done.err.startswith(("page.yaml:", f"{page}:"))
    listed = kit("check", page, "--json")
    assert listed.code == 2
    assert any(message in problem["text"] for problem in listed.json()["errors"])
    assert list(tmp_path.iterdir()) == [page]


RUNS = {
    "corpus missing": (RUN.replace("corpus.txt", "nothing.txt"), "nothing.txt"),
    "vocabulary smaller than the tokenizer's": (RUN.replace("vocab_size: 257", "vocab_size: 100"), "vocab_size"),
    "corpus shorter than a sequence": (RUN.replace("corpus.txt", "short.txt"), "a sequence needs seq_len + 1 = 17"),
    "empty corpus": (RUN.replace("corpus.txt", "empty.txt"), "empty"),
    "binary corpus": (RUN.replace("corpus.txt", "binary.txt"), "binary.txt"),
    "sequence longer than the model's": (RUN.replace("seq_len: 16", "seq_len: 64"), "max_seq_len"),
    "broken line": (JSONL, "broken.jsonl"),
    "prompt of nothing": (RUN.replace("the ", ""), "must have at least one token"),
    "momentum that is none": (RUN.replace("adamw, lr: 1e-3", "sgd, lr: 1e-3, nesterov: true"), "needs a momentum"),
    "nothing to freeze": (RUN.replace("{steps: 4", "{freeze: [layer.0.*], steps: 4"), "named like 'layer.0.*'"),
    "no such device": (RUN.replace("{peak", "{device: abacus, peak"), "cannot use 'abacus'"),
    "not UTF-8": (RUN.replace("corpus.txt", "latin.txt"), "must be UTF-8"),
    "no tokenizer's file": (RUN + "tokenizer: {type: bpe, file: broken.jsonl}\n", "not a tokenizer file"),
    "steps before all gradients are there": (
        RUN.replace("{peak", "{optimizer_in_backward: true, peak"),
        "choose train.max_grad_norm: null and train.gradient_accumulation: 1, got 1.0 and 1",
    ),
    "tracker twice": (RUN + "trackers: [jsonl, {type: jsonl}]\n", "'jsonl' is listed twice"),
    "no optimizer": (RUN.replace("optimizer: {type: adamw, lr: 1e-3}\n", ""), "optimizer"),
    "absurd learning rate": (RUN.replace("1e-3", "-1"), "must be more than 0"),
}  # fmt: skip


ONLY_READING_TELLS = {"corpus shorter than a sequence", "broken line"}
"""What is found only when the whole corpus is read, which `kit check` does not."""


@pytest.mark.parametrize("what", RUNS)
def test_bad_runs(kit: Kit, run_page: Path, tmp_path: Path, what: str) -> None:
    text, message = RUNS[what]
    run_page.write_text(text)
    (tmp_path / "short.txt").write_text("ab")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "broken.jsonl").write_text('{"text": "good"}\n{"text": \n')
    (tmp_path / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    done = kit("train", run_page, "--out", "out", "--json")
    assert done.code == 2
    (error, *others) = json.loads(done.out.splitlines()[-1])["errors"]
    assert message in error["text"] + error["path"]
    assert (error["file"], error["line"] > 0) == ("run.yaml", True)
    assert not others
    assert "Traceback" not in done.out + done.err
    assert not (tmp_path / "out").exists()
    if what not in ONLY_READING_TELLS:
        assert kit("check", run_page, "--json").json()["errors"] == [error]


def test_set_to_nowhere(kit: Kit, page: Path) -> None:
    for change in (
        "model.d_mode=3",
        "nothing",
        "model.d_model.x=1",
        "=1",
        "model.layers.at.--5=1",
        "model.²=1",
        "a.=1",
    ):
        done = kit("check", page, "--set", change)
        assert done.code == 2, change
        assert len(done.err.splitlines()) == 1, change
        assert "--set" in done.err


def test_folders_that_cannot_be_used(kit: Kit, run_page: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    for out, message in [
        ("file", "is a file"),
        ("full", "exists and is not empty"),
        ("file/below", "cannot be written"),
    ]:
        done = kit("train", run_page, "--out", out)
        assert done.code == 3, out
        assert message in done.err
    assert kit("train", run_page, "--out", "full", "--resume").code == 3
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thing"]
