"""Cutting documents of any length into pieces of bounded size, where a tokenizer would most likely cut as well."""

from collections.abc import Iterable, Iterator

SIZE = 1 << 16
"""Characters of a piece, at most."""


def cut(pieces: Iterable[tuple[str, bool]], size: int = SIZE) -> Iterator[tuple[str, bool]]:
    """The same documents as (text, whether the document ends here), each text at most `size` characters.

    Cuts fall after a line's end between two characters that are no white space: the usual pre-tokenizers cut there
    too, so the tokens are those of the whole document. Where there is no such place any line's end will do, then any
    character: the text stays the same and a word may be spelled with other tokens.
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
    last = end = text.rfind("\n", begin, limit)
    while end > begin:
        if not text[end - 1].isspace() and not text[end + 1].isspace():
            return end + 1
        end = text.rfind("\n", begin, end)
    return last + 1 if last >= 0 else limit
