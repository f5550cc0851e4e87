"""What is installed is what is here: packages, shipped specs, public names; and a hidden `registry` is told plainly."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import transformer_kit

ROOT = Path(__file__).parents[1]
SHIPPED = "transformer_kit.configs"

PUBLIC = [
    "Model", "ModelSpec", "RunSpec", "Spec", "SpecError", "build", "load", "load_tokenizer", "prepare_for_inference",
    "read", "save",
]  # fmt: skip


def python(*arguments: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python on these arguments, in `folder`, with `path` first; without `site`, so no editable install is found."""
    places = os.pathsep.join([str(path), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {**os.environ, "PYTHONPATH": places, "NO_COLOR": "1"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what a wheel of this checkout installs, built without a network and outside the checkout."""
    here = tmp_path_factory.mktemp("wheel")
    sources = here / "sources"
    for name in ("registry", "transformer_kit", "configs"):
        _copy(ROOT / name, sources / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (sources / name).write_bytes((ROOT / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(here), str(sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = here.glob("*.whl")
    target = here / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def test_wheel_holds_every_file(installed: Path) -> None:
    for top, home in (("registry", "registry"), ("transformer_kit", "transformer_kit"), ("configs", SHIPPED)):
        kept = installed.joinpath(*home.split("."))
        here = {
            p.relative_to(ROOT / top) for p in (ROOT / top).rglob("*") if p.is_file() and "__pycache__" not in p.parts
        }
        missing = {str(p) for p in here if not (kept / p).is_file()}
        assert not missing, f"{top}: not in the wheel"


def test_wheel_finds_its_specs(installed: Path, tmp_path: Path) -> None:
    code = "import transformer_kit as kit; print(kit.__file__); print(kit.read('quickstart').hash)"
    done = python("-c", code, path=installed, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    file, hash = done.stdout.split()
    assert file == str(installed / "transformer_kit/__init__.py")
    assert hash == transformer_kit.read("quickstart").hash


def test_module_runs_as_a_program(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "transformer_kit", "--help", path=installed, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: kit" in done.stdout


def test_public_names() -> None:
    assert transformer_kit.__all__ == PUBLIC
    assert all(getattr(transformer_kit, name) is not None for name in PUBLIC)


def test_says_so_when_another_package_hides_the_registry(tmp_path: Path) -> None:
    other = tmp_path / "other/registry/__init__.py"
    other.parent.mkdir(parents=True)
    other.touch()
    both = Path(f"{tmp_path / 'other'}{os.pathsep}{ROOT}")
    for command in (["-c", "import transformer_kit"], ["-m", "transformer_kit", "--help"]):
        done = python(*command, path=both, folder=tmp_path)
        assert done.returncode == 1
        assert f"transformer_kit needs its own package `registry`, but Python finds another one: {other}" in done.stderr
