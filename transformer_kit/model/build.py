"""Assembles a model: gives each part its options, its site and its children, then initializes the weights.

Assembly runs on the meta device first, so that all faults are found at once, before memory is allocated.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic_core import PydanticCustomError
from torch import nn

from registry import core
from registry.contracts import Part, Site
from registry.options import Group, Options, Slot
from transformer_kit.model.given import device_of, dtype_of, seed_of
from transformer_kit.model.init import site_of
from transformer_kit.model.model import Model
from transformer_kit.model.unfilled import Unfilled
from transformer_kit.spec.check import Source
from transformer_kit.spec.errors import Mark, Problem, SpecError
from transformer_kit.spec.read import page_of
from transformer_kit.spec.schema import ModelSpec, Spec
from transformer_kit.transform.materialize import fill, materialize
from transformer_kit.transform.pipeline import transformed

KERNEL = "sdpa"
MAX_PARTS, MAX_DISTINCT = 2**17, 2**14
"""Largest number of parts, and of parts in distinct layers: about 200 us and 10 KB each, without their weights."""


def build(
    spec: str | Path | Mapping[str, Any] | Spec | ModelSpec,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    seed: int = 0,
    kernel: str | Options = KERNEL,
) -> Model:
    """The model that `spec` describes, with initial weights, in training mode.

    `spec` is a file, the name of a shipped spec, a mapping in the form of a spec, or a spec object. `kernel` computes
    attention and is not part of the architecture. Device "meta" allocates nothing. The same seed gives the same
    weights on every device. Raises SpecError with all faults.
    """
    place, kind, seed = device_of(device), dtype_of(dtype), seed_of(seed)
    model = assemble(page_of(spec), kernel).to(kind)
    if place.type == "meta":
        return model
    return transformed(model, materialize=partial(materialize, device=place), fill=partial(fill, seed=seed))


def assemble(spec: Spec, kernel: str | Options = KERNEL) -> Model:
    """The model on the meta device. Raises SpecError with all faults."""
    return _assembled(_Assembler(spec, kernel))


def assemble_distinct(spec: Spec, kernel: str | Options = KERNEL) -> tuple[Model, list[list[int]]]:
    """Like `assemble`, with the first of equal layers alone; also returns the layers that each one stands for.

    Layers are equal when their options are and no part asked for its layer index. Checks and counts of a deep model
    then take no longer.
    """
    model = _assembled(_Assembler(spec, kernel, distinct=True))
    layers = model.blocks()
    distinct = list(dict.fromkeys(layers))
    places = [[i for i, layer in enumerate(layers) if layer is one] for one in distinct]
    model.layers = nn.ModuleList(distinct)
    return model, places


def standing(spec: Spec) -> dict[tuple[Any, ...], tuple[Options, Site]]:
    """Options and site of each part, by its path in the spec; of equal layers, the first alone.

    Where a part cannot be built, its child parts may be missing.
    """
    assembler = _Assembler(spec, KERNEL, distinct=True)
    with torch.device("meta"), Unfilled(), core.activate(frozenset(spec.plugins)):
        assembler.model()
    return assembler.standing


def _assembled(assembler: "_Assembler") -> Model:
    with torch.device("meta"), Unfilled(), core.activate(frozenset(assembler.spec.plugins)):
        model = assembler.model()
    if assembler.problems:
        raise SpecError(sorted(assembler.problems, key=lambda p: (p.mark.file, p.mark.line, p.mark.column)))
    assert model is not None
    return model


class _TooManyParts(Exception):
    """The model has too many parts to build."""


class _Assembler:
    """Builds parts depth first, and collects faults with their places instead of stopping at the first."""

    def __init__(self, spec: Spec, kernel: str | Options, distinct: bool = False) -> None:
        self.spec = spec
        self.distinct = distinct
        self.layers: dict[int, list[tuple[Options, Part | nn.Module, int]]] = {}
        self.built = self.parts = 0
        self.problems: list[Problem] = []
        self.above: list[tuple[Options, tuple[Any, ...]]] = []
        self.standing: dict[tuple[Any, ...], tuple[Options, Site]] = {}
        self.kernel = chosen = _kernel(kernel)
        site = site_of(spec)
        self.site = replace(site, make=self.make, defaults={**site.defaults, "kernel": chosen})
        source = spec._source
        self.source = source if isinstance(source, Source) else Source(None, Mark("spec"))
        self.roots = [(o, p) for o, p in _slots(spec.model, ("model",))]

    def model(self) -> Model | None:
        try:
            return Model(self.spec, self.site)
        except ValueError as error:
            self._note((), error)
        except _TooManyParts as error:
            if not self.problems:
                self._note(("model", "layers"), ValueError(str(error)))
        except Exception:
            if not self.problems:  # else the parent failed because of a faulty child
                raise
        return None

    def make(self, options: Options, site: Site) -> Part | nn.Module:
        path = self._path(options, site)
        self.standing.setdefault(path, (options, site))
        self._check_size()
        if self.distinct and options.part.family == "block" and not self.above:
            return self._layer(options, site, path)
        return self._made(options, site, path)

    def _layer(self, options: Options, site: Site, path: tuple[Any, ...]) -> Part | nn.Module:
        """An equal layer that was built before."""
        alike = self.layers.setdefault(_hash(options), [])
        for known, layer, parts in alike:
            if known == options:
                self.parts += parts
                return layer
        before, index, asked = self.built, site.layer, list[int]()

        def ask() -> int:
            asked.append(index)
            return index

        layer = self._made(options, replace(site, at=ask), path)
        if not asked and not self.problems:
            alike.append((options, layer, self.built - before))
        return layer

    def _check_size(self) -> None:
        """Count a part before it is built. Raises _TooManyParts above the limits."""
        self.built += 1
        self.parts += 1
        few = "choose fewer layers, experts, or norms for each head"
        if self.distinct and self.built > MAX_DISTINCT:
            raise _TooManyParts(f"consists of more than {MAX_DISTINCT:,} parts that differ; {few}")
        if self.parts > MAX_PARTS:
            raise _TooManyParts(f"consists of more than {MAX_PARTS:,} parts; {few}")
        if self.built == MAX_DISTINCT and not self.distinct:  # large models are counted before they are built
            counted = _Assembler(self.spec, self.kernel, distinct=True)
            counted.model()
            self.problems += counted.problems
            if counted.problems:
                raise _TooManyParts

    def _made(self, options: Options, site: Site, path: tuple[Any, ...]) -> Part | nn.Module:
        with self._inside(options, path):
            try:
                return options.part(options, site)
            except _TooManyParts:
                raise
            except ValueError as error:
                self._note(self.above[-1][1], error)
            except Exception as error:
                if "overflow" in str(error):  # torch raises a RuntimeError with a message of its own
                    self._note(self.above[-1][1], ValueError(f"is too large to count its weights: {error}"))
                elif not self.problems:
                    raise
        return nn.Module()

    @contextmanager
    def _inside(self, options: Options, path: tuple[Any, ...]) -> Iterator[None]:
        self.above.append((options, path))
        try:
            yield
        finally:
            self.above.pop()

    def _path(self, options: Options, site: Site) -> tuple[Any, ...]:
        """Path of these options in the spec: below a part in construction, or among the model's own."""
        below = [slot for above in reversed(self.above) for slot in _slots(*above)]
        if options.part.family == "block":
            return ("model", "layers", "blocks", site.layer)
        return next((p for o, p in [*below, *self.roots] if o is options), ("model",))

    def _note(self, path: tuple[Any, ...], error: ValueError) -> None:
        mark = self.source.mark(path)
        if not mark.path:
            mark = replace(mark, path=".".join(map(str, path)))
        self.problems.append(Problem(mark, str(error)))


def _hash(options: Options) -> int:
    """Equal for equal options."""
    try:
        return hash(options)
    except TypeError:  # a part keeps a list or a mapping
        return 0


def _kernel(kernel: str | Options) -> Options:
    try:
        return Slot("kernel").read(kernel)
    except PydanticCustomError as error:
        raise SpecError([Problem(Mark("kernel"), str(error))]) from None


def _slots(group: Any, path: tuple[Any, ...]) -> list[tuple[Options, tuple[Any, ...]]]:
    """Child parts in a group of options, nested groups included, with their paths."""
    found: list[tuple[Options, tuple[Any, ...]]] = []
    for name in type(group).model_fields:
        value, where = getattr(group, name), (*path, name)
        if isinstance(value, Options):
            found.append((value, where))
        elif isinstance(value, Group):
            found += _slots(value, where)
    return found
