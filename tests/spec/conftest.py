"""What the tests of specs share."""

from pathlib import Path

import pytest

from tests.spec.pages import Pages


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pages:
    """The working folder holds the specs."""
    monkeypatch.chdir(tmp_path)
    return Pages(tmp_path)
