"""All values of a model: those of its spec, and defaults for the others.

Some defaults depend on a part's site, such as `d_ff` on `d_model`; the part's `derived` gives them.
"""

from collections.abc import Mapping
from typing import Any

from registry import core
from registry.options import Group, Options, Slot, plain
from transformer_kit.model.build import standing
from transformer_kit.spec.layers import fold, kinds_of
from transformer_kit.spec.schema import Layers, RunSpec, Spec
from transformer_kit.spec.tree import at

Path = tuple[Any, ...]
LAYERS = ("model", "layers")
BLOCKS = (*LAYERS, "blocks")


class Used:
    """The values of a spec. `layers` is the written form of `model.layers`."""

    def __init__(self, page: Spec, layers: Any) -> None:
        self.page, self.layers = page, layers
        self.blocks = page.model.layers.blocks
        self.derived = _derived(page)

    def at(self, path: Path, value: Any) -> Any:
        """`value`, or for None the default for the site at `path`."""
        if value is not None:
            return value
        if path[:3] == BLOCKS and len(path) > 3:  # only the first of equal layers was built
            path = (*BLOCKS, self.blocks.index(self.blocks[path[3]]), *path[4:])
        return self.derived.get(path)

    def layer_of(self, name: str) -> int | None:
        """The index of a layer equal to `block`, or to the kind `name`; None without one."""
        merged = kinds_of(self.layers)[name]
        written = at(self.page._source.tree, BLOCKS)
        return next((i for i, block in enumerate(written) if block == merged), None)

    def spare(self, name: str) -> tuple[Options, Any]:
        """`block`, or the kind `name`, that no layer has; and its written form."""
        merged = kinds_of(self.layers)[name]
        with core.activate(frozenset(self.page.plugins)):
            return Slot("block").read(merged), merged

    def plain(self, value: Any, written: Any, path: Path) -> tuple[Any, list[str]]:
        """`value` as in YAML, and the dotted paths below it of values that are not in `written`."""
        if isinstance(value, Layers):
            return self._layers(value)
        if isinstance(value, Group):
            return self._group(value, written, path)
        if isinstance(value, (list, tuple)):
            items = [self.plain(v, at(written, (i,)), (*path, i)) for i, v in enumerate(value)]
            return [v for v, _ in items], [f"{i}.{d}" for i, (_, ds) in enumerate(items) for d in ds]
        return plain(value), []

    def _group(self, group: Group, written: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
        values: dict[str, Any] = {}
        defaults: list[str] = []
        if isinstance(group, Options) and group.part is not None:
            values["type"] = group.part.name
        for name in type(group).model_fields:
            here = (*path, name)
            below = at(written, (name,)) if isinstance(written, Mapping) else None
            values[name], inner = self.plain(self.at(here, getattr(group, name)), below, here)
            there = isinstance(written, Mapping) and name in written
            defaults += [f"{name}.{d}" for d in inner] if there else [name]
        return values, defaults

    def _layers(self, layers: Layers) -> tuple[dict[str, Any], list[str]]:
        """The layers as the spec writes them, with all of `block`; folded where it writes single blocks."""
        if not isinstance(self.layers, Mapping) or "block" not in self.layers:
            first = {i: self.blocks.index(block) for i, block in enumerate(self.blocks)}
            made = {i: self.plain(self.blocks[i], None, (*BLOCKS, i))[0] for i in set(first.values())}
            return fold([made[first[i]] for i in range(len(self.blocks))]), []
        index = self.layer_of("block")
        if index is None:
            block, defaults = self.plain(*self.spare("block"), ())
        else:
            written = at(self.page._source.tree, (*BLOCKS, index))
            block, defaults = self.plain(layers.blocks[index], written, (*BLOCKS, index))
        return {**plain(self.layers), "block": block}, [f"block.{d}" for d in defaults]


def resolved(page: Spec) -> dict[str, Any]:
    """Like `Spec.resolved`, with defaults that depend on a part's site."""
    values, _ = Used(page, None).plain(page, None, ())
    found: dict[str, Any] = values
    return found


def _derived(page: Spec) -> dict[Path, Any]:
    """Defaults that depend on a part's site, by path."""
    found: dict[Path, Any] = {("model", "final_norm"): page.model.norm}
    if isinstance(page, RunSpec):
        found["train", "seq_len"] = page.model.max_seq_len
        found["checkpoint", "every"] = page.checkpoint_every
    for path, (options, site) in standing(page).items():
        try:
            derived = options.part.derived(options, site)
        except ValueError:  # the part cannot be built here; `kit check` reports it
            continue
        for name, value in derived.items():
            if not isinstance(value, Options) or value.part.name:  # a scheme added to the embedding
                found[(*path, *name.split("."))] = value
    return found
