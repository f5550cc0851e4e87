"""The command itself, in processes of its own: what it imports, where it prints, whether it colors."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.runner import Kit
from transformer_kit import __version__
from transformer_kit.cli import names
from transformer_kit.cli.main import app

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "transformer_kit.spec.schema", "registry.contracts")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def imported_by(command: str, **env: str) -> tuple[str, list[str]]:
    """What a command prints, and which heavy modules it has imported."""
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('heavy', *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))\n"
        "from transformer_kit.cli.main import main\n"
        f"sys.argv = ['kit', *{command.split()!r}]\n"
        "main()\n"
    )
    done = python("-c", script, **env)
    return done.stdout, done.stderr.rsplit("heavy", 1)[1].split()


@pytest.mark.parametrize("command", ["--help", "list", "list ffn --json", "build --help", "--version"])
def test_quick_commands_import_nothing_heavy(command: str) -> None:
    out, heavy = imported_by(command)
    assert out
    assert heavy == []


def test_completion_imports_nothing_heavy() -> None:
    words = {"COMP_WORDS": "kit show position/r", "COMP_CWORD": "2", "_KIT_COMPLETE": "complete_bash"}
    out, heavy = imported_by("", **words)
    assert out.split() == ["position/rope"]
    assert heavy == []


def test_heavy_modules_would_be_seen() -> None:
    _, heavy = imported_by("show activation/relu")
    assert "torch" in heavy


def test_module_runs_as_command() -> None:
    done = python("-m", "transformer_kit", "--version")
    assert done.stdout == f"kit {__version__}\n"
    assert done.returncode == 0


def test_errors_go_to_stderr_and_output_to_a_pipe_is_plain() -> None:
    done = python("-m", "transformer_kit", "check", "no-such-page.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no-such-page.yaml: there is no such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "\x1b" not in python("-m", "transformer_kit", "list", "norm").stdout


def test_terminals_get_colors_unless_no_color_is_set() -> None:
    assert COLOUR.search(on_terminal("list", "norm"))
    plain = on_terminal("list", "norm", NO_COLOR="1")
    assert "rms_norm" in plain
    assert not COLOUR.search(plain)


def on_terminal(*args: str, **env: str) -> str:
    """What the command writes when stdout is a terminal."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "200", **env}
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "transformer_kit", *args], stdout=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the terminal closes with its process
                break
            written += chunk
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return written.decode()


def test_completion_knows_families_parts_specs_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.yml").touch()
    assert names.families("pos") == ["position"]
    assert "models" in names.families("")
    assert {"position/", "norm/"} <= set(names.parts(""))
    assert names.parts("pos") == names.parts("position/")
    assert names.parts("position/ro") == ["position/rope"]
    assert names.parts("nothing/") == []
    assert {"tutorial", "quickstart", "mine.yaml", "deep/"} <= set(names.specs(""))
    assert names.specs("deep/o") == ["deep/other.yml"]
    assert names.runs("quick") == ["quickstart"]
    assert names.folders("d") == ["deep/"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
@pytest.mark.parametrize("command", ["list", "list --json", "show ffn/mlp --json", "build tutorial --json"])
def test_where_nothing_can_be_printed_that_is_said(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "transformer_kit", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (3, "error: No space left on device\n")


GOOD = {
    "list": "list norm",
    "show": "show norm/none",
    "check": "check small.yaml",
    "explain": "explain small.yaml model.d_model",
    "build": "build small.yaml",
    "new": "new model other",
    "schema": "schema",
}
"""A command line of each command that works on a spec alone."""
BAD = {
    "list": "list nothing",
    "show": "show nothing",
    "check": "check nothing",
    "explain": "explain nothing model",
    "build": "build nothing",
    "new": "new model a/b",
    "train": "train nothing",
    "generate": "generate nothing x",
    "bench": "bench nothing",
    "import": "import nothing out",
    "export": "export nothing out",
    "doctor": "doctor --nothing",
    "schema": "schema --out no/such",
}
"""A command line of each command that is wrong."""


@pytest.mark.parametrize("name", BAD)
def test_json_has_one_shape(kit: Kit, page: Path, name: str) -> None:
    failed = kit(*BAD[name].split(), "--json")
    assert failed.code == 2
    (line,) = [failed.json()] if name == "check" else map(json.loads, failed.out.splitlines())
    assert line["errors"]
    assert all(list(error) == ["file", "line", "column", "path", "via", "text"] for error in line["errors"])
    if name in GOOD:
        done = kit(*GOOD[name].split(), "--json")
        assert done.code == 0
        assert isinstance(done.json(), dict)
        assert not done.json().get("errors")


def test_every_command_is_tried() -> None:
    assert set(BAD) == {c.name for c in app.registered_commands}
