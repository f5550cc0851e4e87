"""The picture of the loss, in a folder of any name."""

import json
import os
from pathlib import Path

import pytest

from transformer_kit.train.plot import draw


@pytest.mark.parametrize("name", ["$\\frac$", "a$b_{$", "[1]", "caf\udce9", "漢字"])
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_the_name_of_a_folder_is_text(tmp_path: Path, name: str) -> None:
    folder = tmp_path / os.fsdecode(os.fsencode(name))
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": i, "loss": 1.0}) + "\n" for i in (1, 2)))
    assert draw(folder / "metrics.jsonl", folder / "loss.png")
    assert (folder / "loss.png").stat().st_size > 1000
