"""The picture of README's swapped word is drawn from the runs that README trains."""

import json
from pathlib import Path

import pytest

from docs.swap import main


def test_rows_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for offset, word in enumerate(("sinusoidal", "rope")):
        for seed in range(3):
            folder = tmp_path / f"{word}-{seed}"
            folder.mkdir()
            records = [{"step": step, "loss": 5.0 - step} for step in (1, 2)] + [{"step": 3, "loss": 2.0}]
            records[-1]["val_loss"] = 2.5 - offset + 0.1 * seed
            (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(tmp_path, tmp_path / "swap.png") == 0
    rows = ["| `sinusoidal` | 2.50 | 2.60 | 2.70 | 2.60 |", "| `rope` | 1.50 | 1.60 | 1.70 | 1.60 |"]
    assert capsys.readouterr().out.splitlines() == rows
    assert (tmp_path / "swap.png").read_bytes().startswith(b"\x89PNG")
