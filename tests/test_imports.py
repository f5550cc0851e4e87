"""Who imports whom: no cycles, and private interfaces of torch in few files only."""

import ast
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
