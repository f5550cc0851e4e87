"""A spec that is no spec at all, or was made to do harm, says so at once."""

import time

import pytest

from tests.spec.pages import Pages
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read

BROKEN = {
    "empty": ("", "page.yaml:1:1: the spec is empty; `kit new model NAME` writes a first one"),
    "comments alone": ("# soon\n", "page.yaml:1:1: the spec is empty"),
    "a list": ("- kit: 1\n", "page.yaml:1:1: a spec must be a mapping of keys to values, got a list"),
    "one word": ("tutorial\n", "page.yaml:1:1: a spec must be a mapping of keys to values, got one value"),
    "tab": (
        "kit: 1\nmodel:\n\td_model: 1\n",
        "page.yaml:3:1: not YAML: found character '\\t' that cannot start any token",
    ),
    "unclosed": ("kit: 1\nmodel: {d_model: 3\n", "page.yaml:3:1: not YAML: expected ',' or '}'"),
    "bad indentation": ("kit: 1\n  model: 3\n", "page.yaml:2:8: not YAML: mapping values are not allowed here"),
    "two documents": ("kit: 1\n---\nkit: 1\n", "page.yaml:2:1: a spec is one document; `---` starts a second one"),
    "tag": ("kit: !!python/object:os.system 1\n", "page.yaml:1:6: kit: tags are not used in specs"),
    "key that is nothing": ("kit: 1\n~: 3\n", "page.yaml:2:1: a key must be a word or a whole number, got nothing"),
    "key that is a list": ("? [a]\n: 3\n", "page.yaml:1:3: a key must be a word or a whole number, got ['a']"),
    "unknown anchor": ("kit: *one\n", "page.yaml:1:6: kit: no anchor '&one' before this"),
    "recursive anchor": ("kit: &one [*one]\n", "page.yaml:1:12: kit.0: no anchor '&one' before this"),
    "NUL": ("kit: 1\nmodel: \0\n", "page.yaml:2:8: not YAML: the character '\\x00' may not stand in a spec"),
    "escape out of range": ('kit: "\\UFFFFFFFF"', "page.yaml:1:1: not YAML: a number in an escape"),
    "absurd version of YAML": ("%YAML 1." + "9" * 9000 + "\n---\nkit: 1", "page.yaml:1:1: not YAML: a number in"),
    "too long": ("#" * 400_001, "page.yaml: the spec is too long: at most 400000 characters, got 400001"),
    "no end of keys": ("".join(f"k{i}: 0\n" for i in range(20_000)), "page.yaml:12500:9: the spec grows too large"),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "page.yaml:5:",
    ),
    "depth bomb": ("[" * 100_000, "page.yaml:1:62: nested too deeply: at most 60 levels"),
    "depth bomb of mappings": ("{a: " * 20_000, "page.yaml:1:242: nested too deeply: at most 60 levels"),
    "depth bomb in lines": ("\n".join(" " * i + "a:" for i in range(500)), "page.yaml:61:61: nested too deeply"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_page_that_is_no_page_says_so_quickly(pages: Pages, name: str) -> None:
    text, message = BROKEN[name]
    began = time.process_time()
    (line,) = pages.wrong(text)
    assert line.startswith(message)
    assert time.process_time() - began < 5


def test_a_page_that_is_not_text(pages: Pages) -> None:
    (pages.folder / "page.yaml").write_bytes(b"kit: 1\n\xff\xfe")
    with pytest.raises(SpecError, match=r"^page\.yaml: not UTF-8 text: byte 7: invalid start byte$"):
        read("page.yaml")


def test_a_byte_order_mark_is_no_mistake(pages: Pages) -> None:
    assert pages.read("\ufeff" + pages.text).model.d_model == 32


def test_broken_yaml_does_not_hide_what_was_found_before_it(pages: Pages) -> None:
    lines = pages.wrong("kit: 1\nkit: 1\nmodel: [\n")
    assert [line.split(" ")[0] for line in lines] == ["page.yaml:2:1:", "page.yaml:4:1:"]
