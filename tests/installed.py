"""Plugins, really installed: built from tests/plugins by pip, into folders of their own."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import core, plugins

SOURCES = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of installed distributions: `shop` holds acme, rotten and thief; `corner` holds squatter."""
    here = tmp_path_factory.mktemp("plugins")
    sources = shutil.copytree(SOURCES, here / "sources")  # building leaves files behind
    stock = {"shop": ["acme", "rotten", "thief"], "corner": ["squatter"]}
    for shelf, names in stock.items():
        options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        packages = [str(sources / name) for name in names]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(here / shelf), *packages]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return {shelf: here / shelf for shelf in stock}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget, before and after, what is installed, and afterwards whatever plugins a test imported or registered."""
    modules = set(sys.modules)
    plugins.all_entries.cache_clear()
    with core.scope():
        yield
    monkeypatch.undo()
    plugins.all_entries.cache_clear()
    for name in set(sys.modules) - modules:
        if "_parts" in name:
            del sys.modules[name]


@pytest.fixture
def shop(fresh: None, shelves: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of acme, rotten and thief, on the path."""
    monkeypatch.syspath_prepend(str(shelves["shop"]))
    return shelves["shop"]
