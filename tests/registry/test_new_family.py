"""A new family is a folder: contract, slot and parts in it, and no edit anywhere else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACT = '''"""Made up for a test."""

from torch import Tensor

from registry.part import ModelPart


class Zeta(ModelPart):
    """x -> x."""

    family = "zeta"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError
'''
PART = '''"""One."""

from torch import Tensor

from registry.core import register
from registry.zeta import Zeta


@register
class One(Zeta):
    """x."""

    def forward(self, x: Tensor) -> Tensor:
        return x
'''
ASKED = """
from registry import core
from registry.options import Slot
from transformer_kit.testing.carriers import contract, is_of_model

assert "zeta" in core.families() and core.family_summary("zeta") == "Made up for a test."
assert contract("zeta").__name__ == "Zeta" and is_of_model("zeta")
print(Slot("zeta").read("one").part.__name__)
"""


def test_a_new_family_is_a_folder_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "registry", tmp_path / "registry", ignore=shutil.ignore_patterns("__pycache__"))
    family = tmp_path / "registry" / "zeta"
    family.mkdir()
    (family / "__init__.py").write_text(CONTRACT)
    (family / "one.py").write_text(PART)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", ASKED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("One", "")
