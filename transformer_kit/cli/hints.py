"""What a mistyped option may mean: another option of the command, or a value of the page, which `--set` replaces."""

from typing import Any

from registry.words import kits, likely


def hint(error: Any) -> None:
    """Say in the parser's error about an unknown option what it may mean; other errors stay as they are."""
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if option is None or context is None or not hasattr(error, "possibilities"):
        return
    known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    near = likely(option.lstrip("-"), [name.lstrip("-") for name in known])
    path = _path(option.lstrip("-").replace("-", "_")) if "--set" in known else None
    if path is not None:
        error.possibilities = []
        error.message = f"{error.message}; it is a value of the page: --set {path}=VALUE"
    elif near:
        error.possibilities = [f"--{name}" for name in near]


def _path(word: str) -> str | None:
    """Where a page has a value of this name."""
    from transformer_kit.spec.explain import within
    from transformer_kit.spec.schema import RunSpec

    found = [path for path in kits(word) if path.partition(".")[0] in RunSpec.model_fields and "." in path]
    return next(iter([*found, *within(RunSpec, word)]), None)
