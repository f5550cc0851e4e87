"""`kit new`: what it writes passes its own checks, and replaces nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from registry import core, plugins
from tests.cli.runner import Kit
from transformer_kit.spec import yaml
from transformer_kit.testing import checks_for

ROOT = Path(__file__).parents[2]
FEW = "causal or documented or options_round_trip or bends"
"""Of the plugin's tests; the guide to plugins runs them all."""


@pytest.mark.parametrize("kind", ["model", "run"])
def test_pages_check_and_match_their_schema(kit: Kit, tmp_path: Path, kind: str) -> None:
    done = kit("new", kind, "mine")
    assert done.code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kit.schema.json", "mine.yaml"]
    checked = kit("check", "mine.yaml")
    assert (checked.code, checked.err) == (0, "")
    text = (tmp_path / "mine.yaml").read_text()
    assert "{{" not in text
    schema = tmp_path / text.split("\n", 1)[0].removeprefix("# yaml-language-server: $schema=")
    page, _ = yaml.parse(text, "mine.yaml")
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(page)


def test_nothing_is_replaced(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    (tmp_path / "kit-acme").mkdir()
    for kind, name in (("model", "mine"), ("run", "mine.yaml"), ("plugin", "acme")):
        done = kit("new", kind, name)
        assert done.code == 3
        assert "exists already; choose another name" in done.err
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kit-acme", "mine.yaml"]


@pytest.mark.parametrize(
    "words", ["page x", "model ../x", "model a/b", "plugin Acme", "plugin a.b", "model x --in no", "model .x"]
)
def test_names_that_cannot_be(kit: Kit, tmp_path: Path, words: str) -> None:
    done = kit("new", *words.split(), "--json")
    assert done.code == 2
    assert done.json()["errors"]
    assert list(tmp_path.iterdir()) == []


def test_plugin_installs_lists_checks_and_passes_its_test(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = kit("new", "plugin", "acme", "--json").json()["files"]
    assert "kit-acme/kit_acme/softsign.py" in written
    assert "kit-acme/pyproject.toml" in written
    site = tmp_path / "site"
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(tmp_path / "kit-acme")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", FEW, str(tmp_path / "kit-acme")],
        capture_output=True, text=True, env=env, timeout=120, check=False,
    )  # fmt: skip
    assert f"4 passed, {len(checks_for('activation')) - 3} deselected" in tested.stdout, tested.stdout + tested.stderr

    monkeypatch.syspath_prepend(str(site))
    plugins.all_entries.cache_clear()
    try:
        with core.scope():
            _is_used(kit, tmp_path)
    finally:
        monkeypatch.undo()
        plugins.all_entries.cache_clear()


def _is_used(kit: Kit, folder: Path) -> None:
    os.chdir(folder)
    listed = kit("list", "activation", "--json").json()
    assert listed["plugins"] == ["acme"]
    part = next(p for p in listed["families"]["activation"]["parts"] if p["name"] == "acme.softsign")
    assert part["plugin"] == "acme"
    assert "kit-acme" in part["summary"]
    shown = kit("show", "activation/acme.softsign", "--json").json()
    assert shown["options"][0]["name"] == "sharpness"
    assert "activation.acme.softsign" in kit("schema").json()["$defs"]
    kit("new", "model", "mine")
    page = folder / "mine.yaml"
    text = page.read_text().replace("activation: silu", "activation: {type: acme.softsign, sharpness: 2.0}")
    page.write_text(text)
    unlisted = kit("check", page)
    assert unlisted.code == 2
    assert "add 'acme' under `plugins:`" in unlisted.err
    page.write_text(text + "plugins: [acme]\n")
    assert kit("check", page).code == 0
    schema = json.loads((folder / "kit.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.parse(page.read_text(), "mine.yaml")[0])
    assert "acme.softsign" in kit("build", page).out


def test_a_file_of_ones_own_is_not_taken_for_the_schema(kit: Kit, tmp_path: Path) -> None:
    for text in ("MINE", "[1]", '{"title": "other"}'):
        (tmp_path / "kit.schema.json").write_text(text)
        done = kit("new", "model", "mine")
        assert done.code != 0
        assert "kit.schema.json" in done.err
        assert (tmp_path / "kit.schema.json").read_text() == text
        assert not (tmp_path / "mine.yaml").exists()
    (tmp_path / "kit.schema.json").unlink()
    assert kit("new", "model", "mine").code == 0
    assert kit("new", "model", "other").code == 0
