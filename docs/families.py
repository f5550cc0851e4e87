"""The families of published models as a spec: what their declarations say, and what was measured of them."""

import json
import re
from pathlib import Path
from typing import Any

from transformer_kit.convert.declaration import FOLDER, Declaration, read

ROOT = Path(__file__).parents[1]
PARITY = ROOT / "docs" / "reference" / "parity.json"
_INTRO = """\
A family is a `model_type` of Hugging Face folders that has a declaration: a file which says how its `config.json` is a
page and how its tensors are ours. `kit import` reads such folders, `kit export` writes them. See
[import a checkpoint](../how-to/import-a-checkpoint.md), [export a model](../how-to/export-a-model.md) and
[add a family](../how-to/add-a-family.md)."""
_MEASURED = """\
Each configuration is a tiny model made by transformers, with noise on every weight so that each counts, saved and
imported. `difference` is the largest difference of a logit, `decoded` the largest through decode state, `exported` that
of what transformers reads of the export, which comes back to the kit bit for bit. `as` is the family that the export
takes where a plainer one computes the same. `std` is the standard deviation of the reference's logits; a difference up
to 2e-5 times `std`, or 2e-5 where `std` is below 1, passes. `lines` is the length of the spec."""


def families_page(note: str) -> str:
    """Every family, by `model_type`."""
    result = measurements()
    lines = [note, "# Families", "", _INTRO, "", "| model_type | what | class | tensor rules | measured |"]
    lines += ["|---|---|---|---|---|"]
    paths = sorted(FOLDER.glob("[a-z]*.yaml"))
    lines += [_family(path, read(path), result["configurations"]) for path in paths]
    lines += ["", "## Measured", "", _MEASURED, "", f"{_conditions(result)}", ""]
    lines += ["| configuration | model_type | difference | decoded | exported | as | std | lines |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {name} | `{m['family']}` | {_figures(m)} | {m['std']:.2g} | {m['spec_lines']} |"
        for name, m in sorted(result["configurations"].items(), key=lambda item: (item[1]["family"], item[0]))
    ]
    if result["refused"]:
        lines += ["", "## Refused", "", "Configurations of declared families for which there is no part yet.", ""]
        lines += ["| configuration | the key that is named |", "|---|---|"]
        lines += [f"| {name} | `{key}` |" for name, key in sorted(result["refused"].items())]
    return "\n".join(lines).strip() + "\n"


def measurements() -> dict[str, Any]:
    """What `python -m tests.convert.parity` wrote."""
    found: dict[str, Any] = json.loads(PARITY.read_text("utf-8"))
    return found


def _family(path: Path, declaration: Declaration, measured: dict[str, Any]) -> str:
    names = ", ".join(f"[`{n}`](../../transformer_kit/convert/families/{path.name})" for n in declaration.names)
    classes = ", ".join(f"`{c}`" for c in declaration.classes)
    own = [m for m in measured.values() if m["family"] in declaration.names]
    told = f"{len(own)}, at most {max(m['difference'] for m in own):.1e}" if own else "not measured"
    return f"| {names} | {_title(path)} | {classes} | {_rules(declaration)} | {told} |"


def _figures(measured: dict[str, Any]) -> str:
    differences = [f"{measured[what]:.1e}" for what in ("difference", "decoded", "exported")]
    other = "" if measured["exported_as"] == measured["family"] else f"`{measured['exported_as']}`"
    return " | ".join([*differences, other])


def _rules(declaration: Declaration) -> int:
    """How many names or rules give tensors, those of special cases included."""
    special: set[str] = set()
    for cases in declaration.when.values():
        for case in cases.values():
            special |= set(case.get("tensors", {}))
    return len(special | set(declaration.tensors))


def _title(path: Path) -> str:
    """The comment that a declaration begins with."""
    comment = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    text = " ".join(comment).replace("|", "\\|")
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _conditions(result: dict[str, Any]) -> str:
    count, families = len(result["configurations"]), len({m["family"] for m in result["configurations"].values()})
    versions = f"transformers {result['transformers']} and torch {result['torch']}"
    how = f"Measured by `{result['measured_by']}` with {versions}, in float32 on the CPU"
    return f"{how}: {count} configurations of {families} families."
