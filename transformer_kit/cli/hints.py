"""Hints for an unknown option: a similar option of the command, or a value of the spec for `--set`."""

from typing import Any

from registry.words import kits, likely

EXTRA = {
    "generate": "; put a prompt of several words in quotes",
    "list": "; `kit show FAMILY/NAME` shows one part",
}
"""Hint for an extra argument, by command."""


def hint(error: Any) -> None:
    """Add a hint to the parser's error about an unknown option or an extra argument."""
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if str(getattr(error, "message", "")).startswith("Got unexpected extra argument") and context is not None:
        error.message = f"{error.message}{EXTRA.get(context.info_name, _extra(context))}"
    if option is None or context is None or not hasattr(error, "possibilities"):
        return
    known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    near = likely(option.lstrip("-"), [name.lstrip("-") for name in known])
    path = _path(option.lstrip("-").replace("-", "_")) if "--set" in known else None
    if path is not None:
        error.possibilities = []
        error.message = f"{error.message}; it is a value of the spec: --set {path}=VALUE"
    elif near:
        error.possibilities = [f"--{name}" for name in near]


def _extra(context: Any) -> str:
    takes_sets = any("--set" in parameter.opts for parameter in context.command.params)
    return "; --set takes PATH=VALUE, as in --set model.d_model=64" if takes_sets else ""


def _path(word: str) -> str | None:
    """Path of a value of this name in the spec."""
    from transformer_kit.spec.explain import within
    from transformer_kit.spec.schema import RunSpec

    found = [path for path in kits(word) if path.partition(".")[0] in RunSpec.model_fields and "." in path]
    return next(iter([*found, *within(RunSpec, word)]), None)
