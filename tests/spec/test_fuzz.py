"""Whatever is given to `read` ends in a spec or in a SpecError, and soon."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec.pages import PAGE
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.spec.yaml import dump

WORDS = (
    "kit plugins model extends layers count block kinds pattern at type mixer ffn norm attention gated pre_norm rope"
)
MORE = "d_model vocab_size max_seq_len position blocks train steps optimizer adamw samplers n_heads tutorial"
KEYS = st.sampled_from([*WORDS.split(), *MORE.split()])
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | KEYS | st.text(max_size=5)
TREES = st.recursive(LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=5), max_leaves=25)
quietly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def survive(content: bytes, sets: tuple[str, ...] = ()) -> None:
    """Read a spec of these bytes, which may be refused, in time."""
    Path("page.yaml").write_bytes(content)
    began = time.process_time()
    with contextlib.suppress(SpecError):
        read("page.yaml", sets)
    assert time.process_time() - began < 3


@quietly
@given(st.binary(max_size=200))
def test_bytes(folder: Path, content: bytes) -> None:
    survive(content)


@quietly
@given(st.text(st.sampled_from("abc:-[]{}*&!|>'\"#%@`,? \n\t01.\\x\0"), max_size=60))
def test_text(folder: Path, text: str) -> None:
    survive(text.encode())


@quietly
@given(st.integers(0, len(PAGE)), st.integers(0, 30), st.text(max_size=6))
def test_a_good_page_with_a_hole(folder: Path, start: int, length: int, text: str) -> None:
    survive((PAGE[:start] + text + PAGE[start + length :]).encode("utf-8", "replace"))


@quietly
@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_structure(folder: Path, tree: Any) -> None:
    survive(dump(tree).encode())
    for kind in (Spec, RunSpec):
        with contextlib.suppress(SpecError):
            kind.of(tree)


@quietly
@given(st.lists(KEYS | st.sampled_from(["0", "-1", "²", "--1", ""]), max_size=5), TREES | st.text(max_size=9))
def test_sets(folder: Path, path: list[str], value: Any) -> None:
    text = value if isinstance(value, str) else dump(value)
    survive(PAGE.encode(), (f"{'.'.join(path)}={text}",))
