"""Measures every tiny configuration against `transformers`: `python -m tests.convert.parity`.

Writes docs/reference/parity.json, which `python -m docs.generate` reads: for each configuration the family, the largest
differences of logits (read at once, through decode state, and of the export read by `transformers`), the family that
the export took, the standard deviation of the reference's logits, and how many lines of YAML the spec takes.
Figures are in float32 on the CPU. `--only NAME` measures one configuration, prints it and writes nothing.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.convert.test_parity import REFUSED, families
from tests.convert.twins import at_once, decoded, out_and_back, twins

RESULT = Path(__file__).parents[2] / "docs" / "reference" / "parity.json"


def main() -> int:
    """Measure and write; the number to exit with."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if sys.argv[1:2] == ["--only"]:
        sys.stdout.write(json.dumps({name: measured(name) for name in sys.argv[2:]}, indent=2) + "\n")
        return 0
    found = {}
    for name in families():
        found[name] = measured(name)
        sys.stderr.write(f"{name}: {found[name]['difference']:.2g}\n")
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}
    _write({"measured_by": "python -m tests.convert.parity", **versions, "configurations": found, "refused": REFUSED})
    return 0


def measured(name: str) -> dict[str, Any]:
    """The figures of one configuration."""
    with tempfile.TemporaryDirectory() as folder:
        pair = twins(name, Path(folder))
        through = decoded(pair)
        returned, taken = out_and_back(pair)
        lines = len((pair.folder / "kit" / "spec.yaml").read_text("utf-8").splitlines())
    differences = {"difference": at_once(pair), "decoded": through, "exported": returned}
    return {
        "family": pair.theirs.config.model_type,
        **{what: float(f"{figure:.2g}") for what, figure in differences.items()},
        "exported_as": taken,
        "std": float(f"{float(pair.expected.std()):.2g}"),
        "spec_lines": lines,
    }


def _write(result: dict[str, Any]) -> None:
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    os.replace(draft, RESULT)


if __name__ == "__main__":
    sys.exit(main())
