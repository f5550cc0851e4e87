"""Streaming detokenization: whole characters only, and in total the same text as `decode`."""

from collections.abc import Sequence

from registry.contracts import Tokenizer

REPLACEMENT = "\ufffd"
LONGEST_UNFINISHED = 3
"""Maximum bytes of an unfinished UTF-8 character."""


class TextStream:
    """Decodes the continuation of a prompt token by token. The joined pieces are decode(prompt + tokens) without
    decode(prompt).

    Text is held back while the next token can change it. A final U+FFFD may be the start of a character. ByteFallback
    turns a whole run of bytes into U+FFFD if one of them is invalid. Only the latest tokens are decoded again, so the
    cost per token does not grow with the text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt)
        self._settled = len(self._tokens)  # number of _tokens at the last point without held text
        self._sent = len(self._decode())  # number of returned characters of decode(_tokens)

    def push(self, token: int) -> str:
        """New text after `token`; often empty in the middle of a character."""
        self._tokens.append(token)
        text = self._decode()
        end = self._stable(text)
        new = self._send(text, end)
        if end == len(text):
            self._forget()
        return new

    def finish(self) -> str:
        """The text that was held back. The stream is empty afterwards."""
        text = self._decode()
        new = self._send(text, len(text))
        self._tokens, self._settled, self._sent = [], 0, 0
        return new

    def _decode(self, *more: int) -> str:
        return self._tokenizer.decode([*self._tokens, *more])

    def _stable(self, text: str) -> int:
        """Number of characters of `text` that no further token can change."""
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
        """Keep the latest tokens with a text of their own, because decoders depend on the tokens to the left."""
        latest = self._tokens[self._settled :]
        if self._tokenizer.decode(latest):
            self._tokens = latest
            self._sent = len(self._decode())
        self._settled = len(self._tokens)
