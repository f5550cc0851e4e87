"""The parts of a built model as a tree, equal neighbors folded."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from registry.contracts import Kernel, ModelPart
from registry.experts import StackedExperts
from registry.grouped import GroupedLinear
from registry.options import Group, Options, plain
from transformer_kit.cost.count import Kind
from transformer_kit.model.model import Model


@dataclass(frozen=True)
class Node:
    """A part, or several equal ones."""

    label: str
    """The attribute that holds the part, or the layers it stands for."""
    part: str
    """Its registered name."""
    choices: dict[str, Any] = field(default_factory=dict)
    """Options that differ from their defaults."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Its own parameters, without those of its child parts; for experts, those of one expert."""
    parameters: int = 0
    """Parameters of one such part, child parts included."""
    count: int = 1
    """How many such parts there are."""
    children: tuple["Node", ...] = ()

    def data(self) -> dict[str, Any]:
        """The tree as mappings and lists."""
        return {
            "label": self.label,
            "part": self.part,
            "choices": self.choices,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "parameters": self.parameters,
            "count": self.count,
            "children": [child.data() for child in self.children],
        }


def tree(model: Model, stack: list[Kind]) -> list[Node]:
    """Embedding, layers (one node for each kind), final norm and head, in execution order."""
    page = model.spec.model
    layers = []
    for kind in stack:
        label = f"{'layers' if kind.count > 1 else 'layer'} {listed(kind.indices)}"
        layers.append(replace(_node(label, kind.layer, [kind.options, page]), count=kind.count))
    outer = list(_children(model, [page]))
    before = [node for node in outer if node.label in ("embedding", "position")]
    return [*before, *layers, *(node for node in outer if node.label in ("norm", "head"))]


def listed(indices: list[int]) -> str:
    """`0-31`, `0, 2, .. 24`, or each number: sorted indices in short form."""
    if len(indices) < 3:
        return ", ".join(map(str, indices))
    step = indices[1] - indices[0]
    if indices != list(range(indices[0], indices[-1] + 1, step)):
        runs = _runs(indices)
        shown = [f"{a}-{b}" if b > a else str(a) for a, b in runs]
        return ", ".join(shown if len(shown) < 7 else [*shown[:3], "..", shown[-1]])
    return f"{indices[0]}-{indices[-1]}" if step == 1 else f"{indices[0]}, {indices[1]}, .. {indices[-1]}"


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    runs = [(indices[0], indices[0])]
    for i in indices[1:]:
        if i == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs


def _node(label: str, module: nn.Module, around: list[Group]) -> Node:
    """Options of `module`; `around` are the enclosing groups of options, innermost first."""
    options = _chosen(label, module, around)
    shapes = dict(_own_shapes("", module))
    children = tuple(_fold(list(_children(module, around if options is None else [options, *around]))))
    count = sum(p.numel() for p in module.parameters())
    choices = {} if options is None else dict(_choices(options))
    return Node(label, getattr(module, "name", ""), choices, shapes, count, 1, children)


def _chosen(label: str, module: nn.Module, around: list[Group]) -> Options | None:
    """The options that made a module: by its name, else by its class, else the model's default of its class."""
    for group in around:
        slots = dict(_slots(group))
        for value in (slots.get(label), *slots.values(), group):
            if isinstance(value, Options) and value.part is type(module):
                return value
    return None


def _slots(group: Group) -> Iterator[tuple[str, Any]]:
    """The fields of a group of options, nested groups included."""
    for name in type(group).model_fields:
        value = getattr(group, name)
        yield name, value
        if isinstance(value, Group) and not isinstance(value, Options):
            yield from _slots(value)


def _own_shapes(prefix: str, module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Parameters of a module and of its plain torch modules: `q` for `q.weight`."""
    stacked = isinstance(module, GroupedLinear)
    for name, parameter in module.named_parameters(recurse=False):
        shape = tuple(parameter.shape)[1:] if stacked else tuple(parameter.shape)
        yield (prefix.rstrip(".") if prefix and name == "weight" else prefix + name), shape
    for name, child in module.named_children():
        if not isinstance(child, ModelPart):
            yield from _own_shapes(f"{prefix}{name}.", child)


def _children(module: nn.Module, around: list[Group]) -> Iterator[Node]:
    """Child parts that are not an identity. The kernel belongs to the run, not to the model."""
    for name, child in module.named_children():
        if isinstance(child, ModelPart):
            # A position without a name acts elsewhere, and `none` names the identity.
            if child.name not in ("", "none") and not isinstance(child, Kernel):
                yield _node(name, child, around)
        elif isinstance(child, StackedExperts):
            one = _node(name, child.stacked, around)
            yield replace(one, count=child.count, parameters=one.parameters // child.count)
        elif not isinstance(module, Model):
            yield from (replace(n, label=f"{name}.{n.label}") for n in _children(child, around))


def _fold(nodes: list[Node]) -> Iterator[Node]:
    """Fold neighbors that differ only in their place into one node."""
    i = 0
    while i < len(nodes):
        alike = [nodes[i]]
        while i + len(alike) < len(nodes) and replace(nodes[i + len(alike)], label="") == replace(nodes[i], label=""):
            alike.append(nodes[i + len(alike)])
        labels = [n.label for n in alike]
        label = ", ".join(labels) if len(labels) < 3 else f"{labels[0]} .. {labels[-1]}"
        yield replace(nodes[i], label=label, count=len(alike) * nodes[i].count)
        i += len(alike)


def _choices(group: Group) -> Iterator[tuple[str, Any]]:
    """Plain values that differ from their defaults."""
    for name, info in type(group).model_fields.items():
        value = getattr(group, name)
        if isinstance(value, Options):
            continue
        if isinstance(value, Group):
            yield from _choices(value)
        elif value != info.default:
            yield name, plain(value)
