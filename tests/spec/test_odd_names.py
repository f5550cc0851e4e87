"""Names that no file can have or no encoding can write, wherever a spec takes a name: refused in readable words."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from transformer_kit.spec.errors import MAX_TEXT, SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec, Spec

PAGE: dict[str, Any] = {
    "model": {
        "vocab_size": 40,
        "d_model": 8,
        "max_seq_len": 8,
        "layers": {
            "count": 2,
            "block": {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": {"type": "gated"}},
        },
    },
    "optimizer": {"type": "adamw"},
    "train": {"steps": 1},
}
NAMES = {
    "long": "x" * 300,
    "longer": "x" * 100_000,
    "long after a dot": "a." + "x" * 300,
    "long path": "a/" * 3000 + "x.yaml",
    "half a character": "\ud800",
    "half a character in a path": "\ud800/a.yaml",
    "half a character after a dot": "a.\udfff",
    "NUL": "gated\0",
    "NUL in a path": "\0.yaml",
    "line": "a\nb",
    "terminal": "a\x1b[31m",
    "path": "../../etc/passwd",
    "dots": "..",
    "slash": "a/b",
    "shared": "_shared",
    "ligature": "ﬁ",
    "empty": "",
}
WORDS = """
norm plugins.0 extends model.extends model model.norm model.norm.type model.layers.block.ffn model.layers.pattern.0
model.layers.block.ffn.activation model.layers.block.ffn.d_ff kit tokenizer tokenizer.type data data.paths objective
optimizer schedule trackers.0 hardware.device hardware.kernel train.freeze.0
"""
KEYS = ("", "model", "model.layers", "model.layers.kinds", "model.layers.at", "model.layers.block.ffn", "optimizer")


def put(place: str, name: str) -> dict[str, Any]:
    """The spec with the name there."""
    page = deepcopy(PAGE)
    *above, last = place.split(".")
    here: Any = page
    for key in above:
        here = here.setdefault(key, {})
    here.update({last: name})
    for key, value in page.items():
        page[key] = [*value.values()] if isinstance(value, dict) and "0" in value else value
    return page


def pages(name: str) -> Iterator[dict[str, Any]]:
    yield from (put(place, name) for place in WORDS.split())
    for place in KEYS:
        page = deepcopy(PAGE)
        here: Any = page
        for key in place.split(".") if place else ():
            here = here.setdefault(key, {})
        here[name] = {}
        yield page


def refused(make: Callable[[], object]) -> None:
    """Whatever cannot be is a SpecError that any terminal can show."""
    try:
        made = make()
    except SpecError as error:
        for line in str(error).split("\n"):
            line.encode()
            assert line.isprintable()
            assert len(line) < MAX_TEXT + 100
    else:
        assert isinstance(made, Spec)
        assert made.hash


@pytest.mark.parametrize("what", NAMES)
def test_names(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = NAMES[what]
    for page in pages(name):
        refused(lambda page=page: RunSpec.of(page))  # type: ignore[misc]
        Path("page.yaml").write_text(json.dumps(page))
        refused(lambda: read("page.yaml"))
    Path("page.yaml").write_text(json.dumps(PAGE))
    for form in ("model.norm={}", "model={}", "extends={}", "{}=1", "model.{}.a=1", "model.layers.at.{}=1", "{}"):
        refused(lambda form=form: read("page.yaml", [form.format(name)]))  # type: ignore[misc]
    refused(lambda: read(name))
    assert [*tmp_path.iterdir()] == [tmp_path / "page.yaml"]
