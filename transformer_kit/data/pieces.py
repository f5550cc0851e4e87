"""Cutting documents of any length into pieces of bounded size, where a tokenizer would most likely cut as well."""

from collections.abc import Iterable, Iterator

SIZE = 1 << 16
"""Characters of a piece, at most."""


def cut(pieces: Iterable[tuple[str, bool]], size: int = SIZE) -> Iterator[tuple[str, bool]]:
    """The same documents as (text, whether the document ends here), each text at most `size` characters.

    Cuts fall after a line's end that something other than white space follows: pre-tokenizers cut there too, so the
    tokens are those of the whole document. A document with no such place is cut at any character.
    """
    rest = ""
    for text, ends in pieces:
        rest += text
        begin = 0
        while len(rest) - begin > size:
            end = _place(rest, begin, begin + size)
            yield rest[begin:end], False
            begin = end
        rest = rest[begin:]
        if ends:
            yield rest, True
            rest = ""
    if rest:
        yield rest, True


def _place(text: str, begin: int, limit: int) -> int:
    """The last good place to cut in (begin, limit]."""
    end = limit
    while (newline := text.rfind("\n", begin, end)) >= 0:
        if not text[newline + 1].isspace():
            return newline + 1
        end = newline
    return limit
