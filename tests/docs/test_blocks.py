"""Every fenced block of the documentation does what the page says."""

import fnmatch
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from registry import core
from tests.docs.blocks import ROOT, TOLD, TRIED, Block, blocks, pages
from transformer_kit.model.build import assemble
from transformer_kit.spec import files, yaml
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec
from transformer_kit.spec.tree import merge

NOT_RUN = {
    "installs packages from the network": 3,
}
"""Why blocks are not tried, and how many there are."""


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks(page: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with core.scope():
        for block in blocks(page):
            try:
                attempt(block, environment, names)
            except Exception as error:
                raise AssertionError(f"{block}: {error}") from error


def test_every_block_has_a_language() -> None:
    unknown = [str(b) for page in pages() for b in blocks(page) if b.language not in (*TRIED, *TOLD)]
    assert not unknown


def test_what_is_not_run_is_listed() -> None:
    reasons = [b.orders["not run"] for page in pages() for b in blocks(page) if "not run" in b.orders]
    assert {reason: reasons.count(reason) for reason in reasons} == NOT_RUN


def attempt(block: Block, environment: dict[str, str], names: dict[str, Any]) -> None:
    """Try one block in the current folder. Raises whatever shows that it does not do what it should."""
    if "not run" in block.orders or block.language in TOLD:
        return
    if "file" in block.orders:
        target = Path(block.orders["file"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, "utf-8")
    if block.language == "python":
        exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
    elif block.language == "yaml":
        check_yaml(block)
    elif block.language == "console":
        check_session(block, environment)
    else:
        run(shortened(block), environment)


def check_yaml(block: Block) -> None:
    """A page, or a piece of one laid on a shipped page, reads and assembles."""
    value, _ = yaml.parse(block.text, str(block))
    if "part of" in block.orders:
        base, _ = files.page(files.locate(block.orders["part of"]))
        assemble(RunSpec.of(merge(base, value)))
        return
    page = Path(block.orders.get("file", "page.yaml"))
    page.write_text(block.text, "utf-8")
    assemble(read(page))


def shortened(block: Block) -> str:
    """The script, with what makes its training short."""
    if "shorter" not in block.orders:
        assert "kit train" not in block.text, "a training needs a comment `shorter: --set ...`"
        return block.text
    script, changed = re.subn(r"^(kit train .*)$", rf"\1 {block.orders['shorter']}", block.text, flags=re.MULTILINE)
    assert changed, "there is no `kit train` to make shorter"
    return script


def run(script: str, environment: dict[str, str]) -> str:
    """What a shell script writes; AssertionError when a command in it fails."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def check_session(block: Block, environment: dict[str, str]) -> None:
    """Each `$ command` writes what stands below it; a line `...` stands for any lines, a shorter one for any text."""
    for entry in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = entry.partition("\n")
        assert shlex.split(command)[0] == "kit", f"only kit commands are shown with their output, got {command}"
        done = subprocess.run(["bash", "-c", f"{command} 2>&1"], env=environment, capture_output=True, text=True)
        pattern = re.sub(r"^\.\.\.\n", "*", expected.strip() + "\n", flags=re.MULTILINE)
        pattern = fnmatch.translate(re.sub(r"([\[\]?])", r"[\1]", pattern).replace("...", "*"))
        got = "".join(f"{line.rstrip()}\n" for line in done.stdout.strip().splitlines())
        assert re.match(pattern, got), f"$ {command}\n{got}\ninstead of\n{expected}"
