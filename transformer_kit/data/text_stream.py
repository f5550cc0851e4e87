"""Text of tokens as they come: whole characters only, and in the end what `decode` says of all of them."""

from registry.contracts import Tokenizer

REPLACEMENT = "\ufffd"
LONGEST_UNFINISHED = 3
"""Bytes of a UTF-8 character whose last is still missing."""


class TextStream:
    """Decodes token by token.

    A text that ends in U+FFFD may end in the middle of a character, so those are held back until the next token
    tells. Only the latest tokens are decoded again, hence the cost of a token does not grow with the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._settled = 0  # how many of _tokens stood at the last end of a character
        self._sent = 0  # characters of decode(_tokens) that were returned

    def push(self, token: int) -> str:
        """What can be read now that `token` has come; often empty in the middle of a character."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        held = min(len(text) - len(text.rstrip(REPLACEMENT)), LONGEST_UNFINISHED)
        new = self._send(text, len(text) - held)
        if not held:
            self._forget()
        return new

    def finish(self) -> str:
        """What was held back. The stream is empty afterwards."""
        text = self._tokenizer.decode(self._tokens)
        new = self._send(text, len(text))
        self._tokens, self._settled, self._sent = [], 0, 0
        return new

    def _send(self, text: str, end: int) -> str:
        new = text[self._sent : end]
        self._sent = max(self._sent, end)
        return new

    def _forget(self) -> None:
        """Keep the tokens since the last end of a character but one: some decoders look at a token's left neighbour."""
        self._tokens = self._tokens[self._settled :]
        self._settled = len(self._tokens)
        self._sent = len(self._tokenizer.decode(self._tokens))
