"""Cut documents of any length into pieces of bounded size, preferably where pre-tokenizers cut too."""

from collections.abc import Iterable, Iterator

SIZE = 1 << 16
"""Maximum characters per piece."""


def cut(pieces: Iterable[tuple[str, bool]], size: int = SIZE) -> Iterator[tuple[str, bool]]:
    """The same documents as (text, whether the document ends here), each text at most `size` characters.

    Cuts fall after a line end between two characters that are not white space. The usual pre-tokenizers cut there too,
    so the tokens equal those of the whole document. Without such a place the cut falls at any line end, else at any
    character; then a word at the cut may get other tokens.
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
    """The best cut position in (begin, limit], as late as possible."""
    last = end = text.rfind("\n", begin, limit)
    while end > begin:
        if not text[end - 1].isspace() and not text[end + 1].isspace():
            return end + 1
        end = text.rfind("\n", begin, end)
    return last + 1 if last >= 0 else limit
