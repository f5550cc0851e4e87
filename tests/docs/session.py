"""Tries the blocks of one spec, in order, in one folder."""

import fnmatch
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.docs.blocks import CHECKOUT, ROOT, TOLD, Block, blocks
from transformer_kit.convert import declaration
from transformer_kit.model.build import assemble
from transformer_kit.spec import files, yaml
from transformer_kit.spec.schema import RunSpec
from transformer_kit.spec.tree import merge

COPIED = ("registry", "transformer_kit", "configs", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md")
"""What the blocks of a spec need of the project, where they run in a copy of it."""
SHOWN = ("kit", "diff")
"""Commands whose output specs show."""


class Session:
    """One page's folder, environment and Python names."""

    def __init__(self, page: Path, folder: Path, environment: dict[str, str]) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.environment = {**environment, "PYTHONPATH": f"{ROOT}:{folder}/site", "PIP_TARGET": f"{folder}/site"}
        if CHECKOUT in page.read_text("utf-8"):
            self._check_out(folder)

    def attempt(self, block: Block) -> None:
        """Try one block in the current folder. Raises whatever shows that it does not do what it should."""
        if "not run" in block.orders:
            return
        self._borrow(block.orders.get("files of"))
        if "excerpt of" in block.orders:
            assert block.text in Path(block.orders["excerpt of"]).read_text("utf-8")
        elif "file" in block.orders:
            self._write(block)
        elif "declaration" in block.orders:
            target = Path(block.orders["declaration"])
            target.write_text(block.text, "utf-8")
            declaration.read(target)
        elif block.language in TOLD:
            return
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), self.names)
        elif block.language == "yaml":
            self._check(block, Path("page.yaml"))
        elif block.language == "console":
            self._compare(block)
        else:
            self._run(_shortened(block))

    def _check_out(self, folder: Path) -> None:
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        script = folder / "bin/kit"
        script.parent.mkdir()
        script.write_text('#!/bin/sh\nexec python -m transformer_kit "$@"\n', "utf-8")
        script.chmod(0o755)
        self.environment |= {"PYTHONPATH": str(folder), "PATH": f"{folder}/bin:{self.environment['PATH']}"}

    def _borrow(self, page: str | None) -> None:
        for block in blocks(ROOT / page) if page is not None else ():
            if "file" in block.orders:
                self._write(block)

    def _write(self, block: Block) -> None:
        target = Path(block.orders["file"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, "utf-8")
        if block.language == "yaml":
            self._check(block, target)

    def _check(self, block: Block, page: Path) -> None:
        """A spec is good, or refused as it should be; a piece of one is good on the spec it is a part of."""
        if "part of" in block.orders:
            value, _ = yaml.parse(block.text, str(block))
            base, _ = files.page(files.locate(block.orders["part of"]))
            assemble(RunSpec.of(merge(base, value)))
            return
        page.write_text(block.text, "utf-8")
        done = self._bash(f"kit check {page}")
        if "wrong" in block.orders:
            assert done.returncode == 2, done.stdout
            assert block.orders["wrong"] in done.stdout, done.stdout
        else:
            assert done.returncode == 0, done.stdout

    def _compare(self, block: Block) -> None:
        """Each `$ command` writes what stands below it; `...` stands for any text, lines included."""
        for entry in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = entry.partition("\n")
            assert shlex.split(command)[0] in SHOWN, f"only output of {SHOWN} is shown, got {command}"
            got = "".join(f"{line.rstrip()}\n" for line in self._bash(command).stdout.strip().splitlines())
            pattern = re.sub(r"([\[\]?*])", r"[\1]", expected.strip() + "\n").replace("...", "*")
            assert re.match(fnmatch.translate(pattern), got), f"$ {command}\n{got}\ninstead of\n{expected}"

    def _run(self, script: str) -> None:
        done = self._bash(script)
        assert done.returncode == 0, f"exit code {done.returncode}\n{script}\n{done.stdout}"

    def _bash(self, script: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", f"exec 2>&1 </dev/null\n{script}"]
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, timeout=120, check=False
        )


def _shortened(block: Block) -> str:
    """The script, with what makes its training short."""
    if "short already" in block.orders or "kit train" not in block.text:
        return block.text
    assert "shorter" in block.orders, "a training needs a comment `shorter: --set ...` or `short already`"
    return re.sub(r"^( *kit train .*)$", rf"\1 {block.orders['shorter']}", block.text, flags=re.MULTILINE)
