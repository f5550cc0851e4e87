"""`kit train` and `kit generate`: from a spec to text, on a tiny run."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.runner import RUN, Kit
from transformer_kit.cli import progress
from transformer_kit.cli.progress import Bar, _left
from transformer_kit.model import folder
from transformer_kit.train.report import Plan, Progress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(kit: Kit, run_page: Path) -> Path:
    assert kit("train", run_page, "--out", "out").code == 0
    return run_page.parent / "out"


def test_train_writes_a_run_and_tells_where(kit: Kit, run_page: Path, tmp_path: Path) -> None:
    done = kit("train", run_page)
    assert done.code == 0
    assert "4/4  loss" in done.out
    assert "validation loss" in done.out
    assert "tokens/s  MFU" in done.out
    assert "done: 4 steps" in done.out
    assert "try it: kit generate runs/run 'the '" in done.out
    assert {"model", "loss.png", "metrics.jsonl"} <= {p.name for p in (tmp_path / "runs" / "run").iterdir()}
    again = kit("train", run_page)
    assert again.code == 3
    assert "--resume" in again.err


def test_events_are_lines_of_json(kit: Kit, run_page: Path) -> None:
    done = kit("train", run_page, "--out", "out", "--json", "--set", "train.steps=2")
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert {"begin", "progress", "evaluation", "checkpoint"} <= set(kinds)
    assert kinds[-1] == "end"
    assert events[-1]["step"] == 2
    assert events[-1]["interrupted"] is None
    assert done.err == ""


def test_resume_goes_on(kit: Kit, run_page: Path) -> None:
    assert kit("train", run_page, "--out", "out").code == 0
    done = kit("train", run_page, "--out", "out", "--resume")
    assert done.code == 0
    wrong = kit("train", run_page, "--out", "out", "--resume", "--set", "model.d_model=32")
    assert wrong.code in (2, 3)
    assert "Traceback" not in wrong.err
    assert kit("train", run_page, "--resume", "--from", "out").code == 2
    assert "--from" in kit("train", run_page, "--out", "new", "--allow-partial").err


def test_a_page_without_a_model_trains_that_of_the_folder(kit: Kit, trained: Path, tmp_path: Path) -> None:
    page = yaml.safe_load(RUN)
    del page["model"]
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(page))
    assert "needs 'model'" in kit("train", "more.yaml", "--out", "more").err
    for source, out in ((trained, "more"), (trained / "model", "again")):
        assert kit("train", "more.yaml", "--out", out, "--from", source).code == 0
    ours, theirs = (yaml.safe_load((f / "model" / "spec.yaml").read_text()) for f in (tmp_path / "more", trained))
    assert ours["model"] == theirs["model"]
    assert kit("train", "more.yaml", "--out", "more", "--resume").code == 0
    changed = kit("train", "more.yaml", "--out", "other", "--from", trained, "--set", "model.dropout=0.5")
    assert "model.dropout: 0.0, now 0.5" in changed.err


def test_fine_tuning_asks_before_it_leaves_tensors_out(kit: Kit, trained: Path, run_page: Path) -> None:
    model = trained / "model"
    assert kit("train", run_page, "--out", "tuned", "--from", model).code == 0
    run_page.write_text(RUN.replace("d_ff: 24", "d_ff: 32"))
    refused = kit("train", run_page, "--out", "other", "--from", model)
    assert refused.code == 2
    assert "--allow-partial" in refused.err or "allow_partial" in refused.err
    started = kit("train", run_page, "--out", "third", "--from", model, "--allow-partial", "--json")
    (told,) = [e for e in map(json.loads, started.out.splitlines()) if e["event"] == "transfer"]
    assert "layers.1.ffn.up.weight" in told["fresh"]
    assert "layers.1.mixer.q.weight" in told["carried"]
    nothing = kit("train", run_page, "--out", "fourth", "--from", "nothing")
    assert nothing.code == 2
    assert "nothing" in nothing.err


def test_generate_continues_a_prompt(kit: Kit, trained: Path) -> None:
    first = kit("generate", trained, "the ", "--max-new-tokens", 6, "--seed", 1, "--json").json()
    assert first["prompt"] == "the "
    for where in (trained, trained / "model"):
        done = kit("generate", where, "-", "--max-new-tokens", 6, "--seed", 1, stdin="the ")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"the {first['text']}\n"
    whole = kit("generate", trained, "the ", "--max-new-tokens", 6, "--seed", 1, "--no-stream")
    assert whole.out == f"the {first['text']}\n"


def test_generate_goes_on_past_the_context_of_absolute_positions(kit: Kit, run_page: Path) -> None:
    assert kit("train", run_page, "--set", "model.position=learned", "--set", "train.steps=1", "--out", "out").code == 0
    inside = kit("generate", "out", "the ", "--max-new-tokens", 20, "--json")
    assert (inside.code, inside.err) == (0, "")
    past = kit("generate", "out", "the ", "--seed", 1)
    assert past.code == 0
    assert len(past.out) > 64
    assert past.err.replace("\n", " ").startswith("note: 4 tokens and 128 new ones are more than max_seq_len (32)")
    assert kit("generate", "out", "x" * 200, "--max-new-tokens", 4).code == 0


def test_a_text_is_written_in_another_type(kit: Kit, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[object] = []
    load = folder.load

    def noted(*given: Any, **settings: Any) -> Any:
        model = load(*given, **settings)
        kinds.append((model.embedding.weight.dtype, model.embedding.weight.device.type))
        return model

    monkeypatch.setattr(folder, "load", noted)
    assert kit("generate", trained, "the ", "--max-new-tokens", 2, "--dtype", "bfloat16", "--device", "cpu").code == 0
    assert kinds == [(torch.bfloat16, "cpu")]


def test_sampler_flags_choose(kit: Kit, trained: Path) -> None:
    def text(*flags: object) -> str:
        done = kit("generate", trained, "the ", "--max-new-tokens", 20, "--seed", 1, "--json", *flags)
        assert done.code == 0, done
        return str(done.json()["text"])

    greedy = text("--greedy")
    assert text("--top-k", 1) == text("--top-p", 1e-9) == text("--min-p", 1) == greedy
    assert text("--temperature", 100) != greedy


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "-1"], "--temperature must be"),
        (["--temperature", "nan"], "--temperature must be"),
        (["--top-k", "-2"], "--top-k must be"),
        (["--top-p", "1.5"], "--top-p must be"),
        (["--seed", str(2**64)], "seed"),
        (["--seed", "-1"], "seed"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--greedy", "--top-k", "3"], "--top-k"),
        (["--device", "nowhere"], "--device: cannot use 'nowhere'"),
        (["--dtype", "float7"], "--dtype must be one of float32, bfloat16, float16"),
        (["--compile", "--device", "cpu"], "compile: only steps on a GPU"),
    ],
)
def test_generate_refuses_what_cannot_work(kit: Kit, trained: Path, flags: list[str], message: str) -> None:
    done = kit("generate", trained, "the ", *flags, "--json")
    assert done.code == 2
    (error,) = done.json()["errors"]
    assert message in error["text"]


def test_generate_refuses_prompts_and_folders(kit: Kit, trained: Path, tmp_path: Path) -> None:
    assert "the prompt is empty" in kit("generate", trained, "").err
    past = kit("generate", trained, "x" * 200, "--max-new-tokens", 2)
    assert (past.code, past.err.startswith("note: ")) == (0, True)
    assert "max_seq_len" in past.err
    assert "not UTF-8" in kit("generate", trained, "-", stdin=b"\xff\xfe").err
    assert kit("generate", "nothing", "x").code == 2
    assert "does not exist" in kit("generate", "nothing", "x").err
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    assert "pickle" in kit("generate", "pickled", "x").err
    weights = trained / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    damaged = kit("generate", trained, "x")
    assert damaged.code in (2, 3)
    assert "model.safetensors" in damaged.err
    assert len(damaged.err.splitlines()) == 1


def test_a_loss_that_is_no_number_fails_the_run(kit: Kit, run_page: Path) -> None:
    done = kit("train", run_page, "--out", "out", "--set", "optimizer.lr=1e12", "--set", "train.steps=50")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "step" in done.err


def test_ctrl_c_saves_and_says_how_to_go_on(run_page: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transformer_kit", "train", str(run_page), "--out", str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    endless = [*command, "--set", "train.steps=1000000", "--set", "checkpoint.every=1000000"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by SIGINT after step" in out
    assert out.rstrip().endswith("--resume")
    assert "--set train.steps=1000000" in out
    assert "Traceback" not in err
    assert list((tmp_path / "out" / "checkpoints").iterdir())


def test_the_bar_shows_and_stops() -> None:
    from rich.console import Console

    out = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    bar = Bar(out)
    bar.begin(Plan(Path("out"), 2, 10, 64, 1000, 500, "cpu", "float32", 1.0, 1.0))
    bar.progress(Progress(5, 10, 1.25, 1e-3, 1234.0, 0.5, 65.0))
    bar.evaluation(5, 1.5, 2.25)
    bar.sample(5, "a\x1b[31mb")
    bar.close()
    text = out.export_text()
    for shown in ("5/10", "loss 1.2500", "1,234 tokens/s", "MFU 50%", "1 min 05 s left", "validation loss 1.5000"):
        assert shown in text
    assert "500 trainable" in text
    assert "resuming from step 2" in text
    assert "a\N{REPLACEMENT CHARACTER}[31mb" in text
    bar.close()


def test_durations_have_two_units() -> None:
    assert [_left(s) for s in (0.4, 59, 61, 3661, 90061)] == ["0 s", "59 s", "1 min 01 s", "1 h 01 min", "1 d 1 h"]


def test_lines_do_not_flood(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.reporter(as_json=False)
    for step in range(1, 100):
        lines.progress(Progress(step, 100, 1.0, 1e-3, 1.0, 0.1, 1.0))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_generate_notes_special_tokens_that_a_prompt_spells(kit: Kit, trained: Path) -> None:
    told = kit("generate", trained, "the <|endoftext|>", "--greedy", "--max-new-tokens", 1)
    assert "note: the prompt contains special tokens, which are encoded as such: <|endoftext|>" in told.err
    shown = kit("generate", trained, "the <|endoftext|>", "--greedy", "--max-new-tokens", 1, "--json").json()
    assert len(shown["notes"]) == 1
    quiet = kit("generate", trained, "the <|endoftext|>", "--split-special-tokens", "--greedy", "--json").json()
    assert quiet["notes"] == []
    assert quiet["eos_token_ids"] == [256]


def test_generate_says_what_was_used(kit: Kit, trained: Path) -> None:
    used = kit("generate", trained, "the ", "--json", "--seed", 1).json()["samplers"]
    assert used == [{"type": "temperature", "value": 0.8}]
    (trained / "model" / "generation_config.json").write_text(
        '{"do_sample": true, "top_k": 3, "repetition_penalty": 1.1}'
    )
    found = kit("generate", trained, "the ", "--json", "--seed", 1).json()
    assert found["samplers"] == [{"type": "top_k", "k": 3}]
    assert "asks for repetition_penalty: 1.1, which the kit does not apply" in found["notes"][0]
    both = kit("generate", trained, "the ", "--json", "--temperature", 0.5).json()["samplers"]
    assert [s["type"] for s in both] == ["temperature", "top_k"]
    assert kit("generate", trained, "the ", "--json", "--temperature", 0).json()["samplers"] == []


def test_a_corpus_that_spells_special_tokens_is_noted(kit: Kit, run_page: Path) -> None:
    (run_page.parent / "corpus.txt").write_text("the <|endoftext|> fox jumps\n" * 60)
    assert (
        "the corpus contains special tokens, which are encoded as such: '<|endoftext|>' (60)"
        in kit("train", run_page).out
    )
    again = kit("train", run_page, "--out", "again")  # from the cache
    assert "'<|endoftext|>' (60)" in again.out
    text = kit("train", run_page, "--out", "text", "--set", "train.split_special_tokens=true")
    assert "spells" not in text.out
