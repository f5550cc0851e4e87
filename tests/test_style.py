"""The rules of the house, read off the sources: sizes, one-way imports, one part a file, every option documented."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry import core

ROOT = Path(__file__).parent.parent
ENGINE, REGISTRY = ROOT / "transformer_kit", ROOT / "registry"
FILE, PART_FILE, FUNCTION, FORWARD, BRANCHES, OPTIONS = 300, 150, 40, 25, 3, 10
BANNED_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
TOP_LEVEL = re.compile(
    r"transformer_kit|registry|configs|tests|docs|pyproject\.toml|setup\.py|README\.md|LICENSE|CHANGELOG\.md|CONTRIBUTING\.md"
    r"|Makefile|constraints\.txt|\.ci|\.gitignore|\.gitattributes|\.pre-commit-config\.yaml|\.git|\.github|MANIFEST\.in"
    r"|\.[a-z_]+_cache|\.venv|\.hypothesis|.*\.egg-info|runs|build|dist|__pycache__|shared|NOTICE|\.coverage"
)
LOOKUP = re.compile(r"getattr\((importlib\.)?import_module\((?!f'transformer_kit\.)")
Rule = Callable[[str, Path], Iterator[str]]


def sources(*folders: Path) -> list[Path]:
    return sorted(p for folder in folders for p in folder.rglob("*.py"))


def parts() -> list[Path]:
    return [REGISTRY / family / f"{name}.py" for family in core.families() for name in core.names(family)]


def long_file(text: str, path: Path) -> Iterator[str]:
    """No file is longer than the limit, a part's file less."""
    limit = PART_FILE if path in parts() else FILE
    if len(text.splitlines()) > limit:
        yield f"has {len(text.splitlines())} lines; the limit is {limit}"


def long_function(text: str, path: Path) -> Iterator[str]:
    """No function is longer than the limit."""
    for node in functions(text):
        if lines(node) > FUNCTION:
            yield f"{node.name} has {lines(node)} lines; the limit is {FUNCTION}"


def heavy_forward(text: str, path: Path) -> Iterator[str]:
    """A part's forward is short and has few branches."""
    for node in functions(text):
        branches = sum(isinstance(n, (ast.If, ast.IfExp, ast.For, ast.While, ast.Match)) for n in ast.walk(node))
        if node.name == "forward" and (lines(node) - signature(node) > FORWARD or branches > BRANCHES):
            yield f"forward has {lines(node)} lines and {branches} branches; the limits are {FORWARD} and {BRANCHES}"


def many_options(text: str, path: Path) -> Iterator[str]:
    """A part has few options, beside its slots and groups of options."""
    for options in options_of(text):
        fields = [n for n in options.body if isinstance(n, ast.AnnAssign) and not holds_more(n)]
        if len(fields) > OPTIONS:
            names = ", ".join(ast.unparse(n.target) for n in fields)
            yield f"has {len(fields)} options ({names}); the limit is {OPTIONS}"


def holds_more(field: ast.AnnAssign) -> bool:
    """Whether a field is a slot, or a group of options that may be left out whole."""
    kind = ast.unparse(field.annotation).removesuffix(" | None")
    return kind.endswith("Slot") or (field.value is not None and ast.unparse(field.value) == f"{kind}()")


def undocumented_option(text: str, path: Path) -> Iterator[str]:
    """A string stands under each option."""
    for options in options_of(text):
        for node, below in zip(options.body, [*options.body[1:], None], strict=True):
            told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation) and not told:
                yield f"option {ast.unparse(node.target)} has no string under it"


def other_than_one_part(text: str, path: Path) -> Iterator[str]:
    """A part's file registers one class, bare: its name is the file's."""
    marks = [d for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef) for d in n.decorator_list]
    registered = [ast.unparse(m) for m in marks if "register" in ast.unparse(m)]
    if registered != ["register"]:
        yield f"must have one class under a bare @register, has {registered}"


def wrong_way_import(text: str, path: Path) -> Iterator[str]:
    """The registry knows nothing of the engine."""
    yield from (f"imports {name}" for name in imports(text) if name.split(".")[0] == "transformer_kit")


def other_part_import(text: str, path: Path) -> Iterator[str]:
    """A part imports contracts and its own family's shared file; never another part."""
    known = ("contracts", "context", "texts", "options", "core", "experts", "files", "untrusted", "state")
    shared = {f"registry.{name}" for name in known}
    own = f"registry.{path.parent.name}._"
    for name in imports(text):
        contract = (
            name.rpartition(".")[0] in {f"registry.{f}" for f in core.families()} and name.split(".")[-1][0].isupper()
        )
        if name.startswith("registry.") and not (contract or name.startswith(own) or any(_is(name, s) for s in shared)):
            yield f"imports {name}"


def closed_choice_of_parts(text: str, path: Path) -> Iterator[str]:
    """No Literal or Enum of part names, and no attribute looked up in a module by a name from outside."""
    known = {name for family in core.families() for name in core.names(family)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            named = known & {n.value for n in ast.walk(node.slice) if isinstance(n, ast.Constant)}
            if len(named) > 1:
                yield f"line {node.lineno}: a Literal of part names: {', '.join(sorted(map(str, named)))}"
        if isinstance(node, ast.Call) and LOOKUP.match(ast.unparse(node)):
            yield f"line {node.lineno}: getattr of a module"


def part_by_name(text: str, path: Path) -> Iterator[str]:
    """The engine asks the registry for no part by a name written in the code."""
    for node in ast.walk(ast.parse(text)):
        asks = isinstance(node, ast.Call) and ast.unparse(node.func) in ("core.get", "get") and len(node.args) == 2
        if isinstance(node, ast.Call) and asks and isinstance(node.args[1], ast.Constant):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def functions(text: str) -> Iterator[ast.FunctionDef]:
    return (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef))


def lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def signature(node: ast.FunctionDef) -> int:
    """Lines before the body: a contract's long signature is not the part's doing."""
    return node.body[0].lineno - node.lineno


def options_of(text: str) -> Iterator[ast.ClassDef]:
    """Classes of options: what is called so, and the groups inside of them."""
    for node in ast.walk(ast.parse(text)):
        bases = [ast.unparse(b) for b in getattr(node, "bases", [])]
        if isinstance(node, ast.ClassDef) and any(b.endswith(("Options", "Group")) for b in bases):
            yield node


def imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


EVERYWHERE: list[Rule] = [long_file, long_function, closed_choice_of_parts]
OF_PARTS: list[Rule] = [heavy_forward, many_options, undocumented_option, other_than_one_part, other_part_import]
CASES = [
    *((rule, p) for rule in EVERYWHERE for p in sources(ENGINE, REGISTRY)),
    *((rule, p) for rule in OF_PARTS for p in parts()),
    *((wrong_way_import, p) for p in sources(REGISTRY)),
    *((part_by_name, p) for p in sources(ENGINE)),
]
BAD: list[tuple[Rule, str]] = [
    (long_file, "x = 1\n" * (FILE + 1)),
    (long_function, "def f():\n" + "    x = 1\n" * FUNCTION),
    (heavy_forward, "def forward(x):\n" + "    if x: pass\n" * (BRANCHES + 1)),
    (heavy_forward, "def forward(x):\n" + "    x = 1\n" * (FORWARD + 2)),
    (many_options, "class Options(FFN.Options):\n" + "".join(f"    o{i}: int\n" for i in range(OPTIONS + 1))),
    (undocumented_option, "class Options(FFN.Options):\n    a: int = 1\n    b: int\n    '''Told.'''\n"),
    (other_than_one_part, "class A: ...\n"),
    (other_than_one_part, "@register\nclass A: ...\n@register\nclass B: ...\n"),
    (other_than_one_part, "@register('x')\nclass A: ...\n"),
    (wrong_way_import, "from transformer_kit.model import build\n"),
    (wrong_way_import, "import transformer_kit\n"),
    (other_part_import, "from registry.ffn.mlp import MLP\n"),
    (closed_choice_of_parts, "kind: Literal['rope', 'alibi']\n"),
    (closed_choice_of_parts, "getattr(importlib.import_module(name), part)\n"),
    (part_by_name, "core.get('ffn', 'gated')\n"),
]


@pytest.mark.parametrize(("rule", "path"), CASES, ids=[f"{r.__name__}-{p.relative_to(ROOT)}" for r, p in CASES])
def test_house_rule(rule: Rule, path: Path) -> None:
    assert list(rule(path.read_text("utf-8"), path)) == []


@pytest.mark.parametrize(("rule", "text"), BAD, ids=[f"{r.__name__}-{i}" for i, (r, _) in enumerate(BAD)])
def test_rule_finds_what_it_forbids(rule: Rule, text: str) -> None:
    assert list(rule(text, REGISTRY / "norm" / "some.py"))


def test_no_file_is_a_drawer() -> None:
    found = [p for p in sources(ENGINE, REGISTRY, ROOT / "tests") if p.name in BANNED_NAMES]
    assert found == []


def test_top_level_holds_nothing_else() -> None:
    assert [p.name for p in ROOT.iterdir() if not TOP_LEVEL.fullmatch(p.name)] == []
