"""`kit doctor`: features and speed of this machine, and advice about what is slow."""

from collections.abc import Iterator
from typing import Any

from registry import core, plugins
from transformer_kit.cli.catalogue import usable_plugins
from transformer_kit.cli.output import Json, emit, harmless, say

_RATES = {"float32": "FLOP/s", "bfloat16": "FLOP/s", "read": "B/s"}
_WIDE = 24


def doctor(json: Json = False) -> None:
    """Show what this machine has and how fast it is: kernels, compiler, precision, threads, plugins.

    Takes about two seconds after torch is loaded. It ends with advice about what is slow.

    Example: `kit doctor`
    """
    from transformer_kit.diagnosis import examine

    found = examine(_plugins())
    if json:
        emit(found)
        return
    for title, values in found.items():
        for i, (name, value) in enumerate(_rows(title, values)):
            say(f"{title if i == 0 else '':<14}{name:<{_WIDE}}{value}".rstrip())
    say()
    for sentence in found["advice"] or ["no setting makes this machine slower"]:
        say(f"- {harmless(sentence)}")


def _plugins() -> dict[str, Any]:
    """Valid plugins, and faults of the others; imports each part to find them."""
    sound, problems = usable_plugins()
    with core.activate(frozenset(sound)):
        for entry in plugins.all_entries():
            if entry.namespace in sound and entry.family in core.families():
                try:
                    core.get(entry.family, entry.name)
                except core.RegistryError as error:
                    problems.append(str(error))
    return {"found": sound, "problems": problems}


def _rows(title: str, values: Any) -> Iterator[tuple[str, str]]:
    """Names and values of a section, for a reader."""
    from transformer_kit.cost.show import amount, size

    if title == "accelerators":
        for gpu in values or [None]:
            text = "none" if gpu is None else f"{size(gpu['total'])}, {size(gpu['free'])} free, {gpu['capability']}"
            yield ("", text) if gpu is None else (gpu["name"], text)
    elif title == "plugins":
        yield "", ", ".join(values["found"]) or "none"
        yield from (("broken", harmless(problem)) for problem in values["problems"])
    elif title != "advice":
        for name, value in values.items():
            if value is not None and title == "memory":
                yield name, size(value)
            elif value is not None and title == "speed":
                yield name, f"{amount(value)}{_RATES[name]}"
            else:
                yield name, _said(value)


def _said(value: Any) -> str:
    if isinstance(value, bool):  # first, since 1 is equal to True, and a number of threads may be 1
        return "yes" if value else "no"
    return "none" if value is None else str(value)
