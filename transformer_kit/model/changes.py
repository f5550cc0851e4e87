"""Whether a model still matches its spec: loading rebuilds the spec, so modules replaced by hand would be lost."""

from torch import nn

from registry.contracts import Kernel
from transformer_kit.model.build import assemble
from transformer_kit.model.model import Model
from transformer_kit.model.signature import differences


def changes(model: Model) -> list[str]:
    """Differences in modules, options, shapes or ties between a model and its spec, a line each.

    Values, types, devices and `requires_grad` of weights, kernels, and activation checkpointing may differ, since
    a model spec does not contain them.
    """
    wanted = assemble(model.spec)
    ours, theirs = (dict(each.named_modules(remove_duplicate=False)) for each in (model, wanted))
    odd = {name: f"{name} is {'extra' if name in ours else 'missing'}" for name in ours.keys() ^ theirs.keys()}
    found = (
        odd | differences(model, wanted) | {b: f"{b} and {a} are one tensor" for a, b in _ties(model) - _ties(wanted)}
    )
    kernels = {name for modules in (ours, theirs) for name, m in modules.items() if isinstance(m, Kernel)}
    left = {name for name in found if not _is_below(name, kernels)}
    whole = {name for name in left if name in ours or name in theirs}
    return [found[name] for name in sorted(left) if not _is_below(name, whole - {name})]


def _is_below(name: str, modules: set[str]) -> bool:
    """Whether the name is one of the modules, or inside one."""
    steps = name.split(".")
    return any(".".join(steps[: i + 1]) in modules for i in range(len(steps)))


def _ties(model: nn.Module) -> set[tuple[str, str]]:
    """Names of parameters that share one tensor, in pairs."""
    found: set[tuple[str, str]] = set()
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            found.add((first[id(parameter)], name))
    return found
