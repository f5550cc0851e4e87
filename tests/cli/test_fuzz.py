"""Whatever text a spec holds, and whatever `--set` says, `kit check` answers with 0 or 2 and never a traceback."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.cli.runner import PAGE
from transformer_kit.cli.main import app

LINES = PAGE.splitlines()
SCALARS = ["", "null", "true", "-1", "0", "1e400", ".nan", "~", "9" * 400, "\x85", "\ufeff", "²", "٣", "rope", "gated"]
SIGNS = ["{}", "[]", "'", '"', "&a", "*a", "!!x", "\t", "<<", "- -", ":", "?"]
NESTED = ["{type: rope}", "{type: [1]}", "{type: 3}", "[local*3]", "{-1: {}}", "{0: 3}"]
ODD = st.sampled_from([*SCALARS, *SIGNS, *NESTED])
WORDS = ["model", "layers", "block", "at", "ffn", "type", "d_ff", "position", "pattern", "kinds"]
KEYS = st.sampled_from([*WORDS, "-1", "0", "x", "--5", "²", ""])
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def bent_pages(draw: Any) -> str:
    """The small page with some of its lines cut, moved, repeated, or given other values."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(lines) - 1))
        key = lines[i].partition(":")[0]
        new = [
            [],
            [lines[i]] * 2,
            [f"{key}: {draw(ODD)}"],
            [" " + lines[i]],
            [lines[i].strip()],
            [draw(st.text(max_size=9))],
        ]
        lines[i : i + 1] = draw(st.sampled_from(new))
        lines = lines or [""]
    return "\n".join(lines)


def check(page: Path, *args: str) -> int:
    result = CliRunner().invoke(app, ["check", str(page), *args], catch_exceptions=False)
    assert bool(result.stderr) == (result.exit_code != 0)
    assert "Traceback" not in result.stderr
    return result.exit_code


@QUICK
@given(text=bent_pages() | st.text(max_size=200))
def test_any_page(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.yaml"
    page.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert check(page) in (0, 2)


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    page = tmp_path / "page.yaml"
    page.write_bytes(content)
    assert check(page) in (0, 2)


@QUICK
@given(path=st.lists(KEYS, max_size=5), value=ODD | st.text(max_size=20))
def test_any_assignment(tmp_path: Path, path: list[str], value: str) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(PAGE)
    assert check(page, f"--set={'.'.join(path)}={value}") in (0, 2)


@QUICK
@given(path=st.lists(KEYS, max_size=6) | st.lists(st.text(max_size=4), max_size=3))
def test_any_path_to_explain(tmp_path: Path, path: list[str]) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(PAGE)
    result = CliRunner().invoke(app, ["explain", str(page), "--", ".".join(path)], catch_exceptions=False)
    assert result.exit_code in (0, 2)


@pytest.mark.parametrize("name", ["", "\0", "x" * 5000, "/", ".", "~", "-", "http://x/y.yaml", "a\nb"])
def test_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["check", "--", name], catch_exceptions=False)
    assert result.exit_code in (2, 3)
    assert "Traceback" not in result.stderr
