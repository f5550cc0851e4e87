"""A reference and our model of its folder, and the ways in which the two must agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.convert.references import reference, tokens
from transformer_kit import Spec, load
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder
from transformer_kit.convert.importing import import_folder
from transformer_kit.generate.prompts import padded
from transformer_kit.model.build import assemble
from transformer_kit.model.model import Model
from transformer_kit.model.signature import difference

PROMPT, SHORTER = 5, 5


@dataclass(frozen=True)
class Twins:
    """Two models of the same weights; built once, for every check."""

    theirs: Any
    ours: Model
    """Imported by `import_folder`, and loaded."""
    ids: Tensor
    """(2, T)."""
    expected: Tensor
    """(2, T, V): the reference's logits."""
    folder: Path
    """Of the reference, `in`; of ours, `kit`."""

    @property
    def tolerance(self) -> float:
        """What a logit may be off."""
        return 2e-5 * max(1.0, float(self.expected.std()))


def twins(name: str, folder: Path) -> Twins:
    """The reference model of a tiny configuration, and ours."""
    theirs: Any = reference(name)
    theirs.save_pretrained(folder / "in")
    import_folder(folder / "in", folder / "kit")
    ids = tokens(name)
    with torch.no_grad():
        return Twins(theirs, load(folder / "kit").eval(), ids, theirs(ids, use_cache=False).logits, folder)


def off(got: Tensor, expected: Tensor) -> float:
    """The largest difference."""
    return float((got - expected).abs().max())


@torch.no_grad()
def at_once(pair: Twins) -> float:
    """How far our logits of the whole text are off."""
    return off(pair.ours(pair.ids).logits, pair.expected)


def pieces(length: int) -> list[int]:
    """A prompt, single tokens, and a last piece of several."""
    return [PROMPT, *[1] * (length - PROMPT - 4), 4]


@torch.no_grad()
def decoded(pair: Twins) -> float:
    """How far our logits through decode state are off those of the whole text."""
    return off(torch.cat(in_pieces(pair), dim=1), pair.expected)


@torch.no_grad()
def generated_alike(pair: Twins) -> bool:
    """Whether both generate the same, across the length at which frequencies change."""
    prompt, new = pair.ids[:1, :PROMPT], pair.ids.shape[1] - PROMPT
    theirs = pair.theirs.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False)
    return pair.ours.generate([prompt[0].tolist()], max_new_tokens=new)[0] == theirs[0, PROMPT:].tolist()


def in_pieces(pair: Twins) -> Sequence[Tensor]:
    """Our logits, piece by piece of texts whose length is known."""
    state = pair.ours.state(*pair.ids.shape)
    state.foreseen = torch.full_like(pair.ids[:, :1], pair.ids.shape[1])
    return [pair.ours(part, state=state).logits for part in pair.ids.split(pieces(pair.ids.shape[1]), dim=1)]


@torch.no_grad()
def padded_on_the_left(pair: Twins) -> float:
    """How far our logits of a batch of unequal rows are off the reference's of each row alone."""
    rows = [pair.ids[0].tolist(), pair.ids[1, :-SHORTER].tolist()]
    ids, segments = padded(rows, pair.ids.device)
    got = pair.ours(ids, segments=segments).logits
    alone = pair.theirs(pair.ids[1:, :-SHORTER], use_cache=False).logits
    return max(off(got[:1], pair.expected[:1]), off(got[1:, SHORTER:], alone))


@torch.no_grad()
def out_and_back(pair: Twins, family: str | None = None) -> tuple[float, str]:
    """How far the logits of our export are off in `transformers`, and the family that it took.

    AssertionError unless what comes back is the same model, bit for bit.
    """
    import transformers

    out = pair.folder / f"out-{family}"
    found = export(pair.ours, out, family=family)
    kind = getattr(transformers, found.declaration.classes[0])
    again = kind.from_pretrained(out, attn_implementation=pair.theirs.config._attn_implementation).eval()
    import_folder(out, pair.folder / f"back-{family}")
    back = load(pair.folder / f"back-{family}")
    same_tensors(back, pair.ours)
    assert same_words(back.spec, pair.ours.spec, found.declaration.names[0] == pair.theirs.config.model_type)
    return off(again(pair.ids, use_cache=False).logits, pair.expected), found.declaration.names[0]


def same_words(one: Spec, other: Spec, own: bool) -> bool:
    """Whether two specs are equal; through another family than their own, whether they mean the same."""
    return one == other if own else difference(assemble(one), assemble(other)) is None


def same_tensors(one: Model, other: Model) -> None:
    """AssertionError unless two models hold the same bits under the same names."""
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert [name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])] == []


def loaded_in_place(pair: Twins) -> Model:
    """Our model of the reference's folder, without a copy."""
    return load_folder(pair.folder / "in")
