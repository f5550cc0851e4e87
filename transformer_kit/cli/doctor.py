"""`kit doctor`: what this machine can do, what will be slow on it, and what to do about that."""

from collections.abc import Iterator
from typing import Any

from registry import core, plugins
from transformer_kit.cli.catalogue import usable_plugins
from transformer_kit.cli.output import Json, emit, harmless, say

_RATES = {"float32": "FLOP/s", "bfloat16": "FLOP/s", "read": "B/s"}
_WIDE = 24


def doctor(json: Json = False) -> None:
    """Say what this machine has and measure how fast it is: kernels, compiler, precision, threads, plugins.

    Takes about two seconds after torch is loaded. The end says in words what will be slow and what to do.

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
    for sentence in found["advice"] or ["nothing here is slower than it has to be"]:
        say(f"- {harmless(sentence)}")


def _plugins() -> dict[str, Any]:
    """Plugins that work, and what is wrong with the others, each of whose parts is imported to see."""
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
                yield name, {None: "none", True: "yes", False: "no"}.get(value, str(value))
