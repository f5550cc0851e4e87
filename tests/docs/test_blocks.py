"""Every fenced block of the documentation does what the spec says."""

from pathlib import Path

import pytest

from registry import core
from tests.docs.blocks import ROOT, TOLD, TRIED, blocks, pages
from tests.docs.session import Session

NOT_RUN = {"installs packages from the network": 4}
"""Why blocks are not tried, and how many there are. These are the commands by which the tests come to run at all."""

WITH_BLOCKS = [page for page in pages() if any(b.language in TRIED for b in blocks(page))]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks(page: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = Session(page, tmp_path, environment)
    with core.scope():
        for block in blocks(page):
            try:
                session.attempt(block)
            except Exception as error:
                raise AssertionError(f"{block}: {error}") from error


def test_every_block_has_a_known_language() -> None:
    assert not [str(b) for page in pages() for b in blocks(page) if b.language not in (*TRIED, *TOLD)]


def test_what_is_not_run_is_listed() -> None:
    reasons = [b.orders["not run"] for page in pages() for b in blocks(page) if "not run" in b.orders]
    assert {reason: reasons.count(reason) for reason in reasons} == NOT_RUN
