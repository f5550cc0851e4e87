"""A family's declaration: the mapping between its config.json and a spec, and between its tensors and the kit's.

One file serves import and export. `model` and `block` are a spec with variables: `$hidden_size` stands for a key of
the config. `when` adds to them by the value of a key, `each` to single layers by the values of a list. Export solves
the same templates for the variables.

    names: [llama]                      values of `model_type`
    classes: [LlamaForCausalLM]         values of `architectures`
    include: [rope]                     fragments shared by families
    defaults: {rms_norm_eps: 1e-6}      values of absent keys
    derived: {kind: {first: $first_k_dense_replace, then: dense, else: sparse}}
    model: {d_model: $hidden_size, ...}
    block: {type: pre_norm, ...}
    when: {attention_bias: {true: {block: {mixer: {bias: [q, k, v, out]}}}, false: {}}}
    each: {layer_types: {sliding_attention: {mixer: {window: $sliding_window}}, full_attention: {}}}
    only: {pretraining_tp: [1]}         keys that the kit supports with these values only
    never: [{new: true, parallel: false}]   values that the class cannot compute together
    needs: [intermediate_size]          required keys, whose default in the class is never meant
    inert: [use_cache]                  keys that do not change logits
    tensors: {...}                      see `tensors`
"""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from transformer_kit.convert.schema import Page, Rule, check
from transformer_kit.spec import files
from transformer_kit.spec.errors import Problem, SpecError
from transformer_kit.spec.tree import find, merge

FOLDER = Path(__file__).parent / "families"
MAX_DEPTH, MAX_FRAGMENTS = 16, 64
"""Maximum depth of includes, and maximum number of files in a declaration."""
MAX_VALUES = 2000
"""Maximum number of values in a declaration, with its includes. Each layer of a model is made from them."""

Cases = dict[str, dict[str, Any]]


class Declaration(Page):
    """One family, with its includes."""

    names: list[str]
    tensors: dict[str, str | Rule] = {}


@cache
def declarations() -> dict[str, Declaration]:
    """Every built-in family, by `model_type`."""
    found: dict[str, Declaration] = {}
    for path in sorted(FOLDER.glob("[a-z]*.yaml")):
        declaration = read(path)
        for name in declaration.names:
            found[name] = declaration
    return found


@cache
def declared(kind: str) -> Declaration | None:
    """The family of a `model_type`. If a file of that name declares it, no other file is read."""
    own = next((p for p in FOLDER.glob("[a-z]*.yaml") if p.stem == kind), None)
    found = None if own is None else read(own)
    return found if found is not None and kind in found.names else declarations().get(kind)


def read(path: Path) -> Declaration:
    """The declaration in a file, with its includes. Raises SpecError with everything that is wrong."""
    page = _Reader().page(path)
    page.pop("include", None)
    page["tensors"] = {k: v for k, v in page.get("tensors", {}).items() if v is not None}
    if path.parent != FOLDER:  # a valid file may be invalid with its includes
        check(page, files.page(path)[1])
    try:
        return Declaration.model_validate(page)
    except ValidationError as error:  # errors of the merged declaration
        table, start = files.page(path)
        found = [(find(table, e["loc"]) or start, ".".join(map(str, e["loc"]))) for e in error.errors()]
        raise SpecError(
            [Problem(mark, f"needs '{where}', here or in an included fragment") for mark, where in found]
        ) from None


class _Reader:
    """Reads a declaration and the fragments that it includes, within limits."""

    def __init__(self) -> None:
        self.read = 0

    def page(self, path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
        """A file's content, merged onto the fragments that it includes."""
        table, start = files.page(path)
        check(table, start)
        base: dict[str, Any] = {}
        for i, name in enumerate(table.get("include", [])):
            try:
                fragment = self._fragment(name, path, (path, *above))
            except ValueError as error:
                raise SpecError([Problem(find(table, ("include", i)) or start, str(error))]) from None
            own = fragment.parent != FOLDER
            base = laid(base, self.page(fragment, (path, *above)) if own else _shared(fragment))
            if _size(base) > MAX_VALUES:
                text = f"is too large with what it includes: at most {MAX_VALUES} values"
                raise SpecError([Problem(find(table, ("include", i)) or start, text)])
        if _size(table) > MAX_VALUES:
            raise SpecError([Problem(start, f"is too large: at most {MAX_VALUES} values")])
        return laid(base, _plain(table))

    def _fragment(self, name: str, path: Path, above: tuple[Path, ...]) -> Path:
        """The file of a fragment, in the folder of the including file or in the kit's. Raises ValueError."""
        found = next((p for p in (path.parent / f"_{name}.yaml", FOLDER / f"_{name}.yaml") if p.is_file()), None)
        if found is None:
            raise ValueError(f"no fragment '{name}'")
        if found in above:
            raise ValueError(f"'{name}' includes itself")
        if found.resolve().parent != found.parent.resolve():
            raise ValueError(f"'{name}' is a link that leads out of the folder of {path.name}")
        self.read += 1
        if len(above) > MAX_DEPTH or self.read > MAX_FRAGMENTS:
            raise ValueError(f"includes too many: at most {MAX_DEPTH} deep and {MAX_FRAGMENTS} in all")
        return found


@cache
def _shared(fragment: Path) -> dict[str, Any]:
    """A built-in fragment with its includes, read once and cached."""
    return _Reader().page(fragment)


def _size(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, inner))


def laid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` merged onto `base`. Lists of names are concatenated; the tensors of `over` come first."""
    joined = ("inert", "ignore", "needs", "never")
    both = [k for k in joined if isinstance(base.get(k), list) and isinstance(over.get(k), list)]
    out = {**_plain(merge(base, over)), **{k: [*base[k], *over[k]] for k in both}}
    if isinstance(over.get("tensors"), dict):
        out["tensors"] = {label: out["tensors"][label] for label in (*over["tensors"], *out["tensors"])}
    return out


def _plain(value: Any) -> Any:
    """The value without source locations. Keys that YAML reads as booleans or null keep their spelling."""
    if isinstance(value, dict):
        return {_spelled(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _spelled(key: Any) -> str:
    words = {True: "true", False: "false", None: "null"}
    return words[key] if key is None or isinstance(key, bool) else str(key)
