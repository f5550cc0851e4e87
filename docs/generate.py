"""Writes the reference from the registry: `python -m docs.generate`.

    docs/reference/parts/<family>.md   every part with its options, paper, capabilities and an example
    docs/reference/spec.md             every key of a spec
    docs/reference/cli.md              every command
    docs/reference/families.md         every family of published models, with what parity.json says was measured
    docs/reference/learning.md         the loss that each part learns to, as learning.json says it was measured
    README.md                          the table of parts

`python -m docs.generate --check` writes nothing and says, with exit code 1, which of them are not current.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.commands import commands
from docs.examples import BASE, Place, places
from docs.families import families_page
from docs.learning import learning_page
from docs.options import code, rows
from registry import contracts, core
from registry.options import Group, slot_family
from transformer_kit.spec.schema import Layers, RunSpec
from transformer_kit.testing.carriers import contract

ROOT = Path(__file__).parents[1]
REFERENCE = "docs/reference"
MEASURED = (f"{REFERENCE}/performance.md", f"{REFERENCE}/performance-gpu.md")
"""The specs that another command writes: `python -m tests.benchmarks.suite`."""
NOTE = "<!-- Written by `python -m docs.generate`; do not edit. -->"
TABLE = ("<!-- parts: written by `python -m docs.generate` -->", "<!-- /parts -->")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def main() -> int:
    """Write every spec, or with `--check` compare them; the number to exit with."""
    written = pages()
    stale = [path for path, text in written.items() if _read(path) != text]
    known = {ROOT / p for p in (*written, *MEASURED)}
    stray = [p.relative_to(ROOT) for p in (ROOT / REFERENCE).rglob("*.md") if p not in known]
    if "--check" in sys.argv[1:]:
        for path in [*stale, *map(str, stray)]:
            sys.stderr.write(f"{path} is not current; run `python -m docs.generate`\n")
        return 1 if stale or stray else 0
    for gone in stray:
        (ROOT / gone).unlink()
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(written[path], "utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


def pages() -> dict[str, str]:
    """Every generated page, by its path in the checkout."""
    where = places()
    found = {f"{REFERENCE}/parts/{f}.md": family_page(f, where.get(f)) for f in core.families()}
    found[f"{REFERENCE}/README.md"] = index_page()
    found[f"{REFERENCE}/spec.md"] = spec_page()
    found[f"{REFERENCE}/cli.md"] = commands(NOTE)
    found[f"{REFERENCE}/families.md"] = families_page(NOTE)
    found[f"{REFERENCE}/learning.md"] = learning_page(NOTE)
    found["README.md"] = _with_table(_read("README.md"))
    return found


# ------------------------------------------------------------------ specs


def index_page() -> str:
    """The way into the reference."""
    lines = [
        NOTE,
        "# Reference",
        "",
        "- [Keys of a spec](spec.md)",
        "- [Commands](cli.md)",
        "- [Families of published models](families.md)",
        "- [How each part learns](learning.md)",
        "- [Glossary](../glossary.md)",
    ]
    lines += ["", "## Parts", "", parts_table("parts")]
    return "\n".join(lines) + "\n"


def parts_table(folder: str) -> str:
    """One row for each family: what it is for and its parts."""
    lines = ["| family | what it is | parts |", "|---|---|---|"]
    for family in core.families():
        parts = " ".join(f"[`{n}`]({folder}/{family}.md#{n})" for n in core.names(family))
        lines.append(f"| [`{family}`]({folder}/{family}.md) | {core.family_summary(family)} | {parts} |")
    return "\n".join(lines)


def family_page(family: str, place: Place | None) -> str:
    """Reference of one family."""
    base = contract(family)
    lines = [NOTE, f"# {family}", "", core.family_summary(family), "", "**Contract.** " + _prose(base.__doc__), ""]
    for name, doc in declared(family).items():
        lines.append(f"- A part declares `{name}`: {_prose(doc)}" if doc else f"- A part declares `{name}`.")
    file = Path(inspect.getfile(base)).relative_to(ROOT).as_posix()
    lines += ["", f"Contract: [`{file}`](../../../{file}), class `{base.__name__}`."]
    for name in core.names(family):
        lines += part_section(family, name, place)
    return _tidy(lines)


def part_section(family: str, name: str, place: Place | None) -> list[str]:
    """Reference of one part."""
    part = core.get(family, name)
    module = inspect.getdoc(inspect.getmodule(part)) or ""
    lines = [
        "",
        f"## {name}",
        "",
        _linked(" ".join(module.split())),
        "",
        "```text",
        inspect.getdoc(part) or "",
        "```",
        "",
    ]
    values = [(n, getattr(part, n)) for n in declared(family)]
    nothing: tuple[object, ...] = ((), frozenset())
    told = [f"`{n}` {code(v)}" for n, v in values if v not in nothing and v != getattr(contracts.ModelPart, n, None)]
    lines += [f"Declares {', '.join(told)}.", ""] if told else []
    options = rows(part.Options)
    header = ["| option | type | default | what |", "|---|---|---|---|"]
    lines += [*header, *options, ""] if options else ["No options.", ""]
    if place is None:
        lines += ["```python", "from transformer_kit import build", "", f'build("tutorial", {family}="{name}")', "```"]
    else:
        lines += [f"<!-- part of: {BASE} -->", "```yaml", place.example(name), "```"]
    path = f"registry/{family}/{name}.py"
    return [*lines, "", f"Source: [`{path}`](../../../{path})."]


def spec_page() -> str:
    """Every key of a spec, section by section."""
    lines = [NOTE, "# Keys of a spec", ""]
    lines += ["A spec with `kit`, `plugins` and `model` describes a model. A spec with any other key describes a run."]
    lines += ["How keys merge is told in [the spec language](../explanation/spec-language.md)."]
    lines += ["Where no upper bound is given, a whole number is at most 10^9 and any other number at most 10^12.", ""]
    for title, group in _sections(RunSpec, ""):
        lines += [
            f"## {title or 'the page'}",
            "",
            (inspect.getdoc(group) or "").split("\n\n")[0].replace("\n", " "),
            "",
        ]
        if group is Layers:
            lines += ["| key | what |", "|---|---|", *layer_rows()]
        else:
            lines += [
                "| key | type | default | what |",
                "|---|---|---|---|",
                *rows(group, section=title.replace(".", ""), folder="parts/"),
            ]
        lines.append("")
    return _tidy(lines)


def layer_rows() -> list[str]:
    """The keys of `layers`, from the documentation of the module that expands them."""
    text = inspect.getdoc(sys.modules[Layers.__module__.replace("schema", "layers")]) or ""
    found = re.findall(r"^ {4}(\w+): (\S.*?) {2,}(\S.*)$", text, re.MULTILINE)
    return [f"| `{key}` | {what}; such as `{key}: {value}` |" for key, value, what in found]


def _sections(group: type[Group], path: str) -> Iterator[tuple[str, type[Group]]]:
    yield path, group
    for name, field in group.model_fields.items():
        inner = field.annotation
        if slot_family(field) is None and inner is not None:
            for candidate in (inner, *getattr(inner, "__args__", ())):
                if isinstance(candidate, type) and issubclass(candidate, Group):
                    yield from _sections(candidate, f"{path}.{name}".strip("."))


def _with_table(readme: str) -> str:
    before, start, rest = readme.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    if not start or not end:
        raise ValueError(f"README.md needs the lines {TABLE[0]} and {TABLE[1]}")
    return f"{before}{start}\n{parts_table(f'{REFERENCE}/parts')}\n{end}{after}"


# ------------------------------------------------------------------ families


def declared(family: str) -> dict[str, str]:
    """Class variables that parts of this family set, with their documentation."""
    base = contract(family)
    own = _class_variables(base)
    common = _class_variables(contracts.ModelPart) if issubclass(base, contracts.ModelPart) else {}
    parts = [core.get(family, name) for name in core.names(family)]
    used = {n for n in common if any(getattr(part, n) != getattr(base, n) for part in parts)}
    return {n: doc for n, doc in (common | own).items() if n in own or n in used}


def _class_variables(cls: Any) -> dict[str, str]:
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and "ClassVar" in ast.unparse(node.annotation):
            text = after.value if isinstance(after, ast.Expr) else None
            found[ast.unparse(node.target)] = str(text.value) if isinstance(text, ast.Constant) else ""
    return found


# ------------------------------------------------------------------ text


def _linked(text: str) -> str:
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _prose(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split())


def _tidy(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _read(path: str) -> str:
    file = ROOT / path
    return file.read_text("utf-8") if file.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
