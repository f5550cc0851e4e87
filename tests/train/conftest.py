"""What the tests of training share."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.runs import WORDS, Recorder, page
from transformer_kit.spec.schema import RunSpec


@pytest.fixture(autouse=True)
def _quiet_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread and a token cache that the tests share."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("TRANSFORMER_KIT_CACHE", str(cache))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of some thousand words."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(" ".join(WORDS[(i * i + i // 7) % len(WORDS)] for i in range(3000)), "utf-8")
    return path


@pytest.fixture
def spec(corpus: Path) -> Callable[..., RunSpec]:
    """Makes run specs: `spec(train={"steps": 3})`."""
    return lambda **changes: RunSpec.of(page(corpus, **changes))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def server() -> Any:
    """Starts processes that have torch imported already, in half a second each."""
    context = multiprocessing.get_context("forkserver")
    slow = ["torch._dynamo", "torch.utils.flop_counter", "matplotlib.figure", "matplotlib.backends.backend_agg"]
    context.set_forkserver_preload(["tests.train.runs", *slow])
    return context
