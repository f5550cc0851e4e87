"""A spec that is right, and what reading has to say about changes to it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec

PAGE = """\
kit: 1
model:
  vocab_size: 64
  d_model: 32
  max_seq_len: 16
  position: rope
  layers:
    count: 4
    block:
      type: pre_norm
      mixer: {type: attention, n_heads: 4}
      ffn: {type: gated, d_ff: 48}
"""


class Pages:
    """Writes `page.yaml` and reads it."""

    text = PAGE

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "page.yaml") -> Path:
        """A file below the working folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def read(self, text: str, sets: Sequence[str] = ()) -> Spec:
        """The spec of a spec."""
        self.write(text)
        return read("page.yaml", sets)

    def wrong(self, text: str, sets: Sequence[str] = (), judge: Callable[[Spec], object] | None = None) -> list[str]:
        """The lines of the error that reading (and then `judge`) ends in."""

        def attempt() -> None:
            spec = self.read(text, sets)
            if judge is not None:
                judge(spec)

        with pytest.raises(SpecError) as caught:
            attempt()
        lines = str(caught.value).splitlines()
        assert lines == [str(problem) for problem in caught.value.problems]
        return lines

    def changed(self, old: str, new: str) -> str:
        """The good page with one thing changed."""
        assert self.text.count(old) == 1
        return self.text.replace(old, new)
