"""Text of tokens as they come: whole characters only, and in the end what `decode` says of all of them."""

from collections.abc import Sequence

from registry.contracts import Tokenizer

REPLACEMENT = "\ufffd"
LONGEST_UNFINISHED = 3
"""Bytes of a UTF-8 character whose last is still missing."""


class TextStream:
    """Decodes token by token what follows a prompt: joined, the pieces are decode(prompt + tokens) beyond
    decode(prompt).

    A text is held back while the next token can change it: a U+FFFD at its end may be the beginning of a character,
    and ByteFallback turns all of a run of bytes into U+FFFD when one of them is wrong. Only the latest tokens are
    decoded again, hence the cost of a token does not grow with the text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt)
        self._settled = len(self._tokens)  # how many of _tokens stood at the last place without held text
        self._sent = len(self._decode())  # characters of decode(_tokens) that were returned

    def push(self, token: int) -> str:
        """What can be read now that `token` has come; often empty in the middle of a character."""
        self._tokens.append(token)
        text = self._decode()
        end = self._stable(text)
        new = self._send(text, end)
        if end == len(text):
            self._forget()
        return new

    def finish(self) -> str:
        """What was held back. The stream is empty afterwards."""
        text = self._decode()
        new = self._send(text, len(text))
        self._tokens, self._settled, self._sent = [], 0, 0
        return new

    def _decode(self, *more: int) -> str:
        return self._tokenizer.decode([*self._tokens, *more])

    def _stable(self, text: str) -> int:
        """Characters of `text` that no further token can change."""
        end, wrong = len(text.rstrip(REPLACEMENT)), self._tokenizer.invalid_byte
        if wrong is None:
            return max(end, len(text) - LONGEST_UNFINISHED)
        other = self._decode(wrong)
        return next((i for i, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), end)

    def _send(self, text: str, end: int) -> str:
        new = text[self._sent : end]
        self._sent = max(self._sent, end)
        return new

    def _forget(self) -> None:
        """Keep the latest tokens that have a text of their own: decoders look at what stands on the left of a token."""
        latest = self._tokens[self._settled :]
        if self._tokenizer.decode(latest):
            self._tokens = latest
            self._sent = len(self._decode())
        self._settled = len(self._tokens)
