"""Documents of any length in pieces: nothing lost, nothing too long, cut where tokenizers cut."""

from hypothesis import given
from hypothesis import strategies as st

from registry.contracts import Tokenizer
from transformer_kit.data.pieces import cut


def joined(pieces: list[tuple[str, bool]]) -> list[str]:
    documents, rest = [], ""
    for text, ends in pieces:
        rest += text
        if ends:
            documents.append(rest)
            rest = ""
    return [*documents, rest] if rest else documents


@given(st.lists(st.tuples(st.text("ab \n", max_size=60), st.booleans())), st.integers(1, 20))
def test_pieces_make_up_the_documents(pieces: list[tuple[str, bool]], size: int) -> None:
    result = list(cut(pieces, size))
    assert joined(result) == joined(pieces)
    assert all(len(text) <= size for text, _ in result)


@given(st.text("ab \n", min_size=1, max_size=200), st.integers(1, 20), st.data())
def test_cuts_do_not_depend_on_how_the_text_arrives(text: str, size: int, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=5)))
    blocks = [(text[a:b], b == len(text)) for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    last = max(i for i, (block, ends) in enumerate(blocks) if not ends or block)  # the document ends once
    blocks = [(block, i == last) for i, (block, _) in enumerate(blocks[: last + 1])]
    assert list(cut(blocks, size)) == list(cut([(text, True)], size))


def test_cuts_between_lines_keep_the_tokens(trained_bpe: Tokenizer) -> None:
    text = "".join(f"line {i}\n\n    indented {i * i}\nmore\n" for i in range(400))
    pieces = [piece for piece, _ in cut([(text, True)], 512)]
    assert len(pieces) > 10
    assert [i for piece in pieces for i in trained_bpe.encode(piece)] == trained_bpe.encode(text)
