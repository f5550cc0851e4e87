"""The path from token ids to logits is short, and the documentation lists it in the order of execution."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from transformer_kit import build, read
from transformer_kit.model.model import Model

ROOT = Path(__file__).parents[2]
FILES, LINES = 12, 900
SMALL = {
    "d_model": 64,
    "vocab_size": 97,
    "layers.count": 2,
    "layers.block.mixer.n_heads": 4,
    "layers.block.mixer.n_kv_heads": 2,
    "layers.block.ffn.d_ff": 96,
}


def entered(model: Model) -> list[str]:
    """Files of the registry and the engine of which a forward pass runs a function, in the order of the first."""
    tokens, found = torch.arange(9)[None], dict[str, None]()

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "registry") or path.is_relative_to(ROOT / "transformer_kit"):
            found[path.relative_to(ROOT).as_posix()] = None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        model(tokens)
    finally:
        sys.settrace(before)
    return list(found)


def test_a_forward_pass_runs_few_files_which_the_documentation_lists() -> None:
    model = build(read("llama-3-8b", [f"model.{key}={value}" for key, value in SMALL.items()])).eval()
    files = entered(model)
    assert len(files) <= FILES, files
    lines = {file: len((ROOT / file).read_text("utf-8").splitlines()) for file in files}
    assert sum(lines.values()) <= LINES, lines
    page = (ROOT / "docs/explanation/model.md").read_text("utf-8")
    listed = re.findall(r"^\d+\. `([^`]+\.py)`", page, flags=re.MULTILINE)
    assert files == listed


def test_a_forward_pass_that_takes_another_way_is_noticed() -> None:
    model = build(read("llama-3-8b", [f"model.{key}={value}" for key, value in SMALL.items()]), kernel="eager").eval()
    assert "registry/kernel/eager.py" in entered(model)
