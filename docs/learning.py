"""The spec of what each part learns, from what `python -m tests.benchmarks.learning` measured."""

import json
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from registry import core

RESULTS = Path(__file__).parent / "reference" / "learning.json"
FAMILIES = (
    *("position", "scaling", "norm", "block", "mixer", "ffn", "router", "activation", "embedding", "head", "init"),
    *("kernel", "objective", "optimizer", "schedule"),
)
"""Families that decide how a model learns; tokenizers and datasets decide what, samplers and trackers neither."""
SEEDS = 3
FAR = 0.15
"""Nats above the spec's own parts from which a part's loss asks for an explanation."""
_DROWNS = "beside which token vectors of 0.02 are small: with `embedding: {{type: token, norm: rms_norm}}` {}."
REMARKS = {
    "activation/sigmoid": "Its slope is at most 1/4.",
    "block/branch_norm": f"Each branch ends in a norm and adds vectors of unit size, {_DROWNS.format('2.31')}",
    "block/sandwich": f"Each branch ends in a norm and adds vectors of unit size, {_DROWNS.format('2.31')}",
    "init/normal": f"What projections into the residual stream add is not scaled by depth, {_DROWNS.format('2.33')}",
    "mixer/differential": f"The norm of each pair of heads makes what it adds large, {_DROWNS.format('2.36')}",
    "mixer/mla": "Only 16 of the 48 channels of a key are rotated: with 32 of 40, 2.44.",
    "norm/none": "Weights of 0.02 let signals vanish where no norm lifts them: with `init: torch` 2.34.",
    "optimizer/sgd": "It has the learning rate of `adamw`: with lr 0.3 and momentum 0.9, 2.71.",
    "position/learned": "Each position is looked up four times a step: after 300 steps no better than `none`.",
    "position/none": "The order of tokens is known from the causal mask alone.",
    "position/sinusoidal": "Seeds differ: with `scale: 0.01` 2.48 and 2.48, with 0.02 2.50 and 2.65.",
    "schedule/constant": "No warm-up, where the spec has 40 steps.",
    "schedule/linear": "No warm-up, where the spec has 40 steps.",
    "schedule/wsd": "No warm-up, where the spec has 40 steps.",
}
"""Why a part learns so much worse, or cannot be trained; what they cite is measured in the same way, with seed 0."""
_INTRO = """\
Does every part train with its default options? Here each is swapped into the spec
[`quickstart`](../../configs/runs/quickstart.yaml) by one word, with the options that it cannot do without, and trained
for the spec's 300 steps with seeds 0, 1 and 2. A seed draws the first weights and the order of the batches. The
model is half as wide as the spec's, and a step has 4 sequences of 64 tokens where the spec has 16 of 256, so that all
takes about ten minutes on two idle cores. So losses are higher than those of `kit train quickstart`, and small
differences say little about a longer training."""
_COLUMNS = """\
`loss` is the mean validation loss of the three seeds, in nats for each byte, on 16,384 bytes; `spread` is
the largest minus the smallest; `against` is `loss` minus that of the spec as it is. A part that the spec names already
has the loss of the spec. Measure your own: `python -m tests.benchmarks.learning --processes 2`, then
`python -m docs.generate`; what is measured already is skipped."""


class Row(NamedTuple):
    """A part and its losses."""

    part: str
    losses: list[float]
    trouble: str
    """Why there is no loss."""


def learning_page(note: str) -> str:
    """A row for each part, family by family."""
    results = measurements()
    lines = [note, "# How each part learns", "", _INTRO, "", _COLUMNS, ""]
    own = base(results)
    if not own:
        return "\n".join([*lines, "Nothing is measured yet."]) + "\n"
    lines += [f"Measured on {results['date']} on {results['machine']}, torch {results['torch']}, with "]
    lines += ["`" + "`, `".join(results["settings"]) + f"`. The spec as it is: {_figure(own)}.", ""]
    lines += ["| family | part | loss | spread | against | remark |", "|---|---|---:|---:|---:|---|"]
    for family in FAMILIES:
        lines += [_line(family, row, mean(own)) for row in rows(family, results)]
    return "\n".join(lines) + "\n"


def measurements() -> dict[str, Any]:
    """What was measured: the key of each part's run by seed, and the loss of each run."""
    empty: dict[str, Any] = {"parts": {}, "runs": {}}
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else empty


def base(results: dict[str, Any]) -> list[float]:
    """The losses of the spec as it is: those of the part that is in it."""
    return next(row.losses for row in rows("objective", results))


def rows(family: str, results: dict[str, Any]) -> list[Row]:
    """The parts of a family, those that learn best first."""
    found = []
    for name in core.names(family):
        part = f"{family}/{name}"
        keys = results["parts"].get(part, {}).values()
        outcomes = [results["runs"][key] for key in keys if key in results["runs"]]
        losses = [value for value in outcomes if isinstance(value, float)]
        trouble = next((value for value in outcomes if isinstance(value, str)), "" if losses else "not measured yet")
        found.append(Row(part, losses, trouble))
    return sorted(found, key=lambda row: mean(row.losses) if row.losses else float("inf"))


def is_far(row: Row, own: float) -> bool:
    """Whether a part learns so much worse than the spec's own that it asks for an explanation."""
    return bool(row.trouble) or mean(row.losses) - own > FAR


def _line(family: str, row: Row, own: float) -> str:
    name = row.part.partition("/")[2]
    link = f"[`{name}`](parts/{family}.md#{name})"
    remark = REMARKS.get(row.part, "") or row.trouble
    if 0 < len(row.losses) < SEEDS:
        remark = f"{len(row.losses)} of {SEEDS} seeds. {remark}".strip()
    if not row.losses:
        return f"| `{family}` | {link} | | | | {remark} |"
    figures = f"{mean(row.losses):.3f} | {max(row.losses) - min(row.losses):.3f} | {mean(row.losses) - own:+.3f}"
    return f"| `{family}` | {link} | {figures} | {remark} |"


def _figure(losses: list[float]) -> str:
    return f"{mean(losses):.3f} nats, spread {max(losses) - min(losses):.3f}"
