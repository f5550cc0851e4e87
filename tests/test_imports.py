"""Who imports whom: no cycles, and private interfaces of torch in few files only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Graph = dict[str, set[str]]


def modules(root: Path, *packages: str) -> dict[str, Path]:
    """Each module's file by its name."""
    found = {}
    for path in (p for package in packages for p in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: dict[str, Path]) -> Graph:
    """What each module imports of the others, inside functions and under TYPE_CHECKING too."""
    graph = {}
    for name, path in files.items():
        named = set(_named(ast.parse(path.read_text("utf-8"))))
        graph[name] = {one if one in files else one.rpartition(".")[0] for one in named} & files.keys() - {name}
    return graph


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def cycles(graph: Graph) -> list[list[str]]:
    """Sets of modules that reach each other."""
    reach = {name: _reached(graph, name) for name in graph}
    found = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return sorted([*names] for names in found if len(names) > 1)


def _reached(graph: Graph, start: str) -> set[str]:
    seen, todo = set[str](), [start]
    while todo:
        for name in graph[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return seen


def test_no_imports_are_circular() -> None:
    assert cycles(imports(modules(ROOT, "transformer_kit", "registry"))) == []


@pytest.mark.parametrize("lazily", ["def f():\n    from pack.a import x", "if TYPE_CHECKING:\n    import pack.a"])
def test_a_lazy_import_closes_a_circle(tmp_path: Path, lazily: str) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    for name, text in {
        "a": "from pack import b",
        "b": "from pack.c import y",
        "c": lazily,
        "d": "import pack.a",
    }.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    assert cycles(imports(modules(tmp_path, "pack"))) == [["pack.a", "pack.b", "pack.c"]]


PRIVATE = {
    "transformer_kit/cost/dispatch.py": 7,
    "transformer_kit/cost/quick.py": 3,
    "transformer_kit/generate/cuda_graph.py": 3,
    "transformer_kit/transform/int8.py": 2,
    "transformer_kit/transform/linear_layers.py": 5,
    "transformer_kit/transform/onednn_linear.py": 3,
    "transformer_kit/transform/packed_linear.py": 5,
}
"""Files that may use private interfaces of torch, each of which says why, and how often at most."""
ATTRIBUTES = {
    "_version", "_cdata", "_use_count", "_current_level", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
    "_backward_pre_hooks", "_compiled_call_impl",
}  # fmt: skip
"""Private attributes of torch's objects."""
LOOKED_UP = re.compile(r"_[a-z][A-Za-z_0-9]*")


def private(text: str) -> Iterator[str]:
    """Each use of a private interface of torch in a source."""
    tree = ast.parse(text)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            named = ast.unparse(node)
            from_torch = re.fullmatch(r"torch(\.\w+)*\._[A-Za-z]\w*(\.\w+)*", named) and named != "torch._C"
            if node.attr in ATTRIBUTES or (from_torch and id(node) not in inner):
                yield named
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("torch"):
            yield from (a.name for a in node.names if re.search(r"(^|\.)_[a-z]", f"{node.module}.{a.name}"))
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if re.match(r"torch\.(\w+\.)*_", a.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "attrgetter"):
            about_torch = "torch" in ast.unparse(node) or "tensor" in ast.unparse(node)
            named = next((a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)), "")
            if about_torch and LOOKED_UP.fullmatch(named):
                yield named


def test_private_interfaces_of_torch_are_in_few_files() -> None:
    found = {}
    for path in sorted(p for package in ("transformer_kit", "registry") for p in (ROOT / package).rglob("*.py")):
        uses = list(private(path.read_text("utf-8")))
        if uses:
            found[path.relative_to(ROOT).as_posix()] = uses
    more = {name: uses for name, uses in found.items() if len(uses) > PRIVATE.get(name, 0)}
    assert not more, "use a public interface, or say why not beside it and list the file in PRIVATE"
    assert not [name for name in PRIVATE if len(found.get(name, ())) < PRIVATE[name]], (
        "PRIVATE allows more than is used"
    )


@pytest.mark.parametrize(
    "text",
    [
        "x = torch._C._get()",
        "y = tensor._version",
        "torch.ops.mkldnn._linear(x)",
        "from torch._dynamo import config",
        "from torch.nn.modules.module import _has_any_global_hook",
        "import torch._dynamo",
        "getattr(tensor, '_use_count')",
    ],
)
def test_private_interfaces_are_seen(text: str) -> None:
    assert len(list(private(text))) == 1
    assert not list(private("torch.linear(x)._mine; self._version_of_mine; from os import _exit"))
