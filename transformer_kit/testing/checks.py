"""The conformance checks: every promise of a contract, tried on a part.

    check_part("ffn", "gated")        runs all checks of the family; returns a report, or raises all failures
    checks_for("ffn")                 the checks one by one, to parametrize a test with

A check is a function of the part's class that raises AssertionError. Its decorator names its families:
`@check("norm", "ffn")`, or `@check(ALL)`, `@check(MODEL)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from registry import core
from transformer_kit.testing.carriers import is_of_model
from transformer_kit.testing.values import LEFT_OUT

ALL = "every family"
MODEL = "every family of the model"
HOMES = (
    "option_checks",
    "model_checks",
    "expert_checks",
    "init_checks",
    "place_checks",
    "kernel_checks",
    "effect_checks",
    "fast_checks",
    "run_checks",
)
"""Modules of this package with checks."""

_checks: list["Check"] = []


class Failure(AssertionError):
    """A part breaks its contract; the message lists every failed check."""


@dataclass(frozen=True)
class Check:
    """One promise, tried on a part."""

    run: Callable[[Any], None]
    families: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it checks, in a few words."""
        return self.run.__name__

    def applies(self, family: str) -> bool:
        """Whether parts of this family make the promise."""
        return family in self.families or ALL in self.families or (MODEL in self.families and is_of_model(family))


@dataclass(frozen=True)
class Report:
    """The checks that a part passed."""

    family: str
    name: str
    checks: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Other parts that are broken and were therefore left out, each with the reason."""

    def __str__(self) -> str:
        passed = f"{self.family}/{self.name}: {len(self.checks)} checks passed"
        return "\n".join([passed, *(f"  left out: {text}" for text in self.left_out)])


def check(*families: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Mark a function as a check of the parts of these families."""

    def mark(run: Callable[[Any], None]) -> Callable[[Any], None]:
        _checks.append(Check(run, families))
        return run

    return mark


def checks_for(family: str) -> list[Check]:
    """The checks that apply to the parts of a family."""
    for home in HOMES:
        import_module(f"transformer_kit.testing.{home}")
    return [c for c in _checks if c.applies(family)]


def check_part(family: str, name: str) -> Report:
    """Run every check of the family. Raises Failure with all that failed; RegistryError for an unknown part."""
    part = core.get(family, name)
    LEFT_OUT.clear()
    failed: dict[str, Exception] = {}
    checks = checks_for(family)
    for one in checks:
        try:
            one.run(part)
        except Exception as error:
            failed[one.name] = error
    if failed:
        lines = [f"  {n}: {'; '.join([_said(e), *getattr(e, '__notes__', [])])}" for n, e in failed.items()]
        head = f"{family}/{name}: {len(failed)} of {len(checks)} checks failed"
        raise Failure("\n".join([head, *lines])) from next(iter(failed.values()))
    broken = {place: error for place, error in LEFT_OUT.items() if place != (family, name)}
    left_out = tuple(f"{f}/{n}: {_said(error)}" for (f, n), error in broken.items())
    return Report(family, name, tuple(c.name for c in checks), left_out)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
