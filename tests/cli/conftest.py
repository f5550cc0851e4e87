"""The command line as a person uses it, in this process."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.runner import CORPUS, PAGE, RUN, Kit, Outcome
from transformer_kit.cli.main import app


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Runs a command in an empty folder; whatever it does not expect is raised here, as a traceback would be shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))

    def run(*args: object, stdin: str | bytes | None = None) -> Outcome:
        result = CliRunner().invoke(app, [str(a) for a in args], input=stdin, catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A small model spec."""
    path = tmp_path / "small.yaml"
    path.write_text(PAGE)
    return path


@pytest.fixture
def run_page(tmp_path: Path) -> Path:
    """A small run's page, and its corpus."""
    (tmp_path / "corpus.txt").write_text(CORPUS)
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path
