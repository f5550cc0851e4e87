"""Assembles a model: hands each part its options, its site and its children, then fills the weights.

Everything is built on the meta device first, so that what is wrong is found, all at once, before memory is taken.
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
"""Parts of a model, and of those of its layers that differ: some 200 us and 10 KB each, without their weights."""


def build(
    spec: str | Path | Mapping[str, Any] | Spec | ModelSpec,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    seed: int = 0,
    kernel: str | Options = KERNEL,
) -> Model:
    """The model that `spec` describes, with fresh weights, in training mode.

    `spec` is a file, the name of a spec of the kit, a mapping as a spec would have it, or a spec object.
    `kernel` computes attention and is no part of the architecture. On device "meta" nothing is allocated. The same
    seed gives the same weights on every device. Raises SpecError with everything that is wrong.
    """
    place, kind, seed = device_of(device), dtype_of(dtype), seed_of(seed)
    model = assemble(page_of(spec), kernel).to(kind)
    if place.type == "meta":
        return model
    return transformed(model, materialize=partial(materialize, device=place), fill=partial(fill, seed=seed))


def assemble(spec: Spec, kernel: str | Options = KERNEL) -> Model:
    """The model on the meta device. Raises SpecError with everything that is wrong."""
    return _assembled(_Assembler(spec, kernel))


def assemble_distinct(spec: Spec, kernel: str | Options = KERNEL) -> tuple[Model, list[list[int]]]:
    """As `assemble`, but of layers that equal each other only the first; and for each, the layers that it stands for.

    Layers equal each other when their options do and no part asked which layer it stands in. To check and to count on
    takes no longer for a deep model.
    """
    model = _assembled(_Assembler(spec, kernel, distinct=True))
    layers = model.blocks()
    distinct = list(dict.fromkeys(layers))
    places = [[i for i, layer in enumerate(layers) if layer is one] for one in distinct]
    model.layers = nn.ModuleList(distinct)
    return model, places


def standing(spec: Spec) -> dict[tuple[Any, ...], tuple[Options, Site]]:
    """The options and the site of each part, by its path in the spec; of layers that equal each other, the first alone.

    Where a part cannot be built, those inside it may be missing.
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
    """Building would take too long and too much memory."""


class _Assembler:
    """Builds parts depth first, noting what is wrong with each and where, instead of stopping at the first."""

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
            if not self.problems:  # else a parent stumbled over a child that could not be built
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
        """A layer built before, where an equal one would come out."""
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
        """Count a part that is to be built. Raises _TooManyParts where there would be no end to building."""
        self.built += 1
        self.parts += 1
        few = "choose fewer layers, experts, or norms for each head"
        if self.distinct and self.built > MAX_DISTINCT:
            raise _TooManyParts(f"consists of more than {MAX_DISTINCT:,} parts that differ; {few}")
        if self.parts > MAX_PARTS:
            raise _TooManyParts(f"consists of more than {MAX_PARTS:,} parts; {few}")
        if self.built == MAX_DISTINCT and not self.distinct:  # so large a model is counted before it is built
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
                if "overflow" in str(error):  # torch says so in a RuntimeError of its own words
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
        """Where in the spec these options stand: below something that is being built, or among the model's own."""
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
    """The parts that a group of options holds, in nested groups too, with their paths."""
    found: list[tuple[Options, tuple[Any, ...]]] = []
    for name in type(group).model_fields:
        value, where = getattr(group, name), (*path, name)
        if isinstance(value, Options):
            found.append((value, where))
        elif isinstance(value, Group):
            found += _slots(value, where)
    return found
