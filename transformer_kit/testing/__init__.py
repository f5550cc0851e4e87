"""Conformance checks: the promises of every contract, to run on your own parts.

    from transformer_kit.testing import check_part
    print(check_part("ffn", "my.swish"))      # raises a Failure with all faults

`checks_for` gives the checks one by one. `options_for` and `specs` are Hypothesis strategies. `strong_init`, `agree`
and the behaviors are for tests of your own. Use parts of plugins inside `registry.core.activate`.
"""

from transformer_kit.testing.behaviors import (
    BEHAVIORS,
    causal,
    decodes_as_it_reads,
    expected_of,
    packed_as_separate,
    padded_as_alone,
    rows_independent,
)
from transformer_kit.testing.carriers import agree, carrier, strong_init
from transformer_kit.testing.checks import Check, Failure, Report, check_part, checks_for
from transformer_kit.testing.strategies import options_for, specs

__all__ = [
    "BEHAVIORS",
    "Check",
    "Failure",
    "Report",
    "agree",
    "carrier",
    "causal",
    "check_part",
    "checks_for",
    "decodes_as_it_reads",
    "expected_of",
    "options_for",
    "packed_as_separate",
    "padded_as_alone",
    "rows_independent",
    "specs",
    "strong_init",
]
