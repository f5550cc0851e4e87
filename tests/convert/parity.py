"""Measures every tiny configuration against `transformers`: `python -m tests.convert.parity`.

Writes docs/reference/parity.json, which `python -m docs.generate` reads: for each configuration the family, the largest
difference of logits, the standard deviation of the reference's logits, and how many lines of YAML the spec takes.
Figures are in float32 on the CPU. `--only NAME` measures one configuration, prints it and writes nothing.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.convert.references import reference, tokens
from tests.convert.test_parity import REFUSED, families
from transformer_kit.convert.folder import load_folder, read_config, spec_of
from transformer_kit.convert.importing import text_of

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
    theirs: Any = reference(name)
    ids = tokens(name)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        theirs.save_pretrained(folder)
        config = read_config(Path(folder))
        expected = theirs(ids, use_cache=False).logits
        difference = (load_folder(Path(folder))(ids).logits - expected).abs().max()
    return {
        "family": config["model_type"],
        "difference": float(f"{float(difference):.2g}"),
        "std": float(f"{float(expected.std()):.2g}"),
        "spec_lines": len(text_of(spec_of(config), config).splitlines()),
    }


def _write(result: dict[str, Any]) -> None:
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    os.replace(draft, RESULT)


if __name__ == "__main__":
    sys.exit(main())
