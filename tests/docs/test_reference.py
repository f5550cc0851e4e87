"""The generated specs are current, and no link in the documentation leads nowhere."""

import re
from pathlib import Path

import pytest

from docs import generate
from docs.families import measurements
from tests.docs.blocks import ROOT, pages
from transformer_kit.convert.declaration import declarations

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def test_reference_is_current() -> None:
    written = generate.pages()
    stale = [path for path, text in written.items() if (ROOT / path).read_text("utf-8") != text]
    stray = {str(p.relative_to(ROOT)) for p in (ROOT / "docs/reference").rglob("*.md")} - {*written, *generate.MEASURED}
    assert not stale, "run `python -m docs.generate`"
    assert not stray


def test_measured_families_are_declared_and_near() -> None:
    known = declarations()
    for name, figures in measurements()["configurations"].items():
        assert figures["family"] in known, name
        assert figures["difference"] <= 2e-5 * max(1.0, figures["std"]), name


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for found in LINK.finditer(text):
        target, _, anchor = (found[1] or found[2]).partition("#")
        if target.startswith("https://"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(found[0])
    assert not broken


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
