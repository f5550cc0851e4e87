"""`kit check`, `kit explain`, `kit schema`."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.runner import PAGE, RUN, Kit


def test_good_pages_are_good(kit: Kit, page: Path, run_page: Path) -> None:
    done = kit("check", page, run_page, "tutorial")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("tutorial: good\n")
    assert kit("check", page, "--json").json() == {"specs": [str(page)], "errors": [], "notes": []}


def test_check_lists_all_that_is_wrong(kit: Kit, page: Path) -> None:
    page.write_text(PAGE.replace("d_ff", "d_f").replace("rope", "rop"))
    done = kit("check", page)
    assert done.code == 2
    assert done.out == ""
    first, second = done.err.splitlines()
    assert first.startswith("small.yaml:6:") or f"{page}:6:" in first
    assert "did you mean 'rope'?" in first
    assert "did you mean 'd_ff'?" in second
    found = kit("check", page, "--json")
    assert found.code == 2
    errors = found.json()["errors"]
    assert [list(p) for p in errors] == [["file", "line", "column", "path", "via", "text"]] * 2
    assert [(p["line"], p["path"]) for p in errors] == [(6, "model.position"), (12, "model.layers.block.ffn.d_f")]


def test_check_finds_what_only_assembling_shows(kit: Kit, page: Path) -> None:
    page.write_text(PAGE.replace("n_heads: 2", "n_heads: 3"))
    done = kit("check", page, "--json")
    assert done.code == 2
    (problem,) = done.json()["errors"]
    assert "n_heads must divide d_model (16), got 3" in problem["text"]
    assert problem["line"] == 11


def test_check_many_pages_reports_each(kit: Kit, page: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("kit: 2\n")
    done = kit("check", page, other, "nothing", "--json")
    assert done.code == 2
    assert [Path(p["file"]).name for p in done.json()["errors"]] == ["other.yaml", "nothing"]


def test_set_replaces_values_and_says_so(kit: Kit, page: Path) -> None:
    assert kit("check", page, "--set", "model.d_model=32").code == 0
    done = kit("check", page, "--set", "model.d_model=no", "--json")
    (problem,) = done.json()["errors"]
    assert problem["via"] == "--set model.d_model=no"
    assert "whole number" in problem["text"]


def test_explain_tells_where_values_come_from(kit: Kit, page: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: small.yaml\nmodel: {layers: {at: {-1: {ffn: {d_ff: 8}}}}}\n")

    def origin(path: str, *sets: str) -> tuple[object, str, int]:
        options = [word for change in sets for word in ("--set", change)]
        found = kit("explain", child, path, "--json", *options).json()
        return found["value"], found["origin"], found["line"]

    assert origin("model.d_model") == (16, "extends", 4)
    assert origin("model.layers.1.ffn.d_ff") == (8, "page", 2)
    assert origin("model.layers.0.ffn.d_ff") == (24, "extends", 12)
    assert origin("model.layers.-1.ffn.type") == ("gated", "extends", 12)
    assert origin("model.layers.block.mixer.n_heads") == (2, "extends", 11)
    assert origin("model.layers.at.-1.ffn.d_ff") == (8, "page", 2)
    assert origin("model.position.theta") == (10000.0, "default", 0)
    assert origin("model.position.type") == ("rope", "extends", 6)
    norm = {"type": "layer_norm", "eps": 1e-5, "weight": True, "bias": True, "offset": 0.0}
    assert origin("model.norm") == (norm, "default", 0)
    assert origin("model.d_model", "model.d_model=64") == (64, "set", 0)
    found = kit("explain", child, "model.position.theta").out
    assert "model.position.theta = 10000.0" in found
    assert "the default of position 'rope'" in found
    assert "Base of the wavelengths" in found


def test_explain_shows_the_defaults_that_are_used(kit: Kit, page: Path) -> None:
    text = (
        PAGE.replace("rope", "alibi")
        .replace(", d_ff: 24", "")
        .replace("type: pre_norm", "type: pre_norm\n      norm: none")
    )
    page.write_text(f"{text}    at: {{1: {{ffn: {{type: mlp, bias: false}}}}}}\n    kinds: {{idle: {{ffn: mlp}}}}\n")

    def used(path: str) -> tuple[object, str]:
        found = kit("explain", page, path, "--json").json()
        return found["value"], found["origin"]

    for layer in ("0", "-2", "block"):
        assert used(f"model.layers.{layer}.ffn.d_ff") == (256, "default")
        assert used(f"model.layers.{layer}.mixer.qkv.v_head_dim") == (8, "default")
        assert used(f"model.layers.{layer}.ffn_norm.type") == ("none", "default")
        assert used(f"model.layers.{layer}.position.type") == ("alibi", "default")
    for layer in ("1", "-1", "at.1"):
        assert used(f"model.layers.{layer}.ffn.d_ff") == (64, "default")
        assert used(f"model.layers.{layer}.ffn.bias") == (False, "page")
    assert used("model.layers.kinds.idle.ffn.activation.type") == ("gelu", "default")  # it stands in no layer
    assert used("model.final_norm.type") == ("layer_norm", "default")
    assert used("model.head.width") == (16, "default")
    assert used("model.layers.block.mixer.window") == (None, "default")
    yarn = kit("explain", "gpt-oss-20b", "model.position.scaling.attention_factor", "--json").json()
    assert (round(yarn["value"], 4), yarn["origin"]) == (1.3466, "default")  # 0.1 ln 32 + 1
    done = kit("explain", "quickstart", "train.seq_len").out
    assert done.startswith("train.seq_len = 256\nnot written: the default of train\n")


def test_explain_of_a_whole_is_many_lines_and_marks_defaults(kit: Kit, page: Path) -> None:
    lines = kit("explain", page, "model.layers").out.splitlines()
    assert max(map(len, lines)) < 60
    assert lines[:5] == ["model.layers:", "  count: 2", "  block:", "    type: pre_norm", lines[4]]
    table = {key.strip(): rest.split("#") for key, _, rest in (line.partition(":") for line in lines)}
    assert [word.strip() for word in table["d_ff"]] == ["24"]
    assert [word.strip() for word in table["head_dim"]] == ["8", "default"]
    assert [word.strip() for word in table["mixer_norm"]] == ["layer_norm", "default"]
    kinds = kit("explain", "gpt-oss-20b", "model.layers").out
    assert "\n  kinds:\n    local:\n      mixer:\n        window: 128\n  pattern: [local, block]\n" in kinds
    assert "written in" in kit("explain", "gpt-oss-20b", "model.layers.kinds.local").out


def test_explain_of_nothing_is_a_mistake(kit: Kit, page: Path) -> None:
    for path, text in [
        ("model.d_mode", "did you mean 'd_model'?"),
        ("model.layers.7", "there are 2, from 0"),
        ("model.d_model.x", "16 has nothing inside"),
        ("model.layers.kinds", "the spec writes no 'kinds'"),
        ("", "no '' in the spec"),
        ("model..x", "no '' in model"),
    ]:
        done = kit("explain", page, path)
        assert done.code == 2, path
        assert text in done.err
        assert len(done.err.splitlines()) == 1


def test_schema_prints_and_writes(kit: Kit, tmp_path: Path) -> None:
    printed = kit("schema").json()
    assert "position.rope" in printed["$defs"]
    assert kit("schema", "--out", "s.json").out == "s.json written\n"
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    missing = kit("schema", "--out", "no/such/s.json")
    assert (missing.code, missing.err) == (2, "error: no/such: no such folder\n")


def test_mistyped_commands_and_options_are_mistakes(kit: Kit) -> None:
    assert kit("chek", "x").code == 2
    assert "Did you mean 'check'" in kit("chek", "x").err
    assert kit("check").code == 2
    assert kit("check", "tutorial", "--st", "x=1").code == 2
    wrong = kit("check", "tutorial", "--st", "x=1", "--json")
    assert wrong.code == 2
    assert "--st" in wrong.json()["errors"][0]["text"]


def test_a_run_whose_tracker_cannot_work_is_told_before_it_begins(
    kit: Kit, run_page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run_page.write_text(f"{RUN}trackers: [tensorboard]\n")
    done = kit("check", run_page)
    assert done.code == 3
    assert "trackers: tracker 'tensorboard' needs the package tensorboard" in done.err


def test_check_notes_a_warm_up_that_fills_the_run(kit: Kit, run_page: Path) -> None:
    done = kit("check", run_page, "--set", "schedule={type: cosine, warmup: 100000000}", "--json").json()
    assert done["errors"] == []
    assert "for `schedule.warmup` is 100,000,000" in done["notes"][-1]
