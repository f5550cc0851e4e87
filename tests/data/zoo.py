"""Tokenizers of the kinds that published models have, as Hugging Face folders: they add, strip, join, fall back."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "the cat sat on the mat, and the other cat sat on the hat.\n",
    "Don't stop: it's 3.14 or 42!  Two spaces, a\ttab.\n\n",
    "naïve café, Grüße, 你好世界 🦜 <b>bold</b>\n",
    "    def f(x):\n        return x + 1\n",
] * 8

Made = tuple[Tokenizer, dict[str, Any]]
"""The tokenizer, and its tokenizer_config.json."""


def trained(made: Tokenizer, trainer: Any) -> Tokenizer:
    made.train_from_iterator(CORPUS, trainer)
    return made


def special(made: Tokenizer, *tokens: str) -> None:
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])


def bpe(*specials: str, size: int = 400, **options: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=[*specials], show_progress=False, **options)


def first(made: Tokenizer, token: str) -> processors.TemplateProcessing:
    number = made.token_to_id(token)
    pair = f"{token} $A {token}:1 $B:1"
    return processors.TemplateProcessing(single=f"{token} $A", pair=pair, special_tokens=[(token, number)])


def gpt2() -> Made:
    """Byte-level, nothing added; turns of a chat as special tokens, a thought as one that is not special."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trained(made, bpe("<|endoftext|>", initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    special(made, "<|im_start|>", "<|im_end|>")
    made.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return made, {"eos_token": "<|im_end|>"}


def llama3() -> Made:
    """Byte-level by a regular expression, with a BOS by a sequence of processors."""
    made = Tokenizer(models.BPE(ignore_merges=True))
    split = Regex(
        r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    trained(made, bpe("<|begin_of_text|>", "<|eot_id|>", initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), first(made, "<|begin_of_text|>")]
    )
    return made, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def fallback() -> list[str]:
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def llama2() -> Made:
    """A space before the text, bytes as fallback, a BOS."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained(made, bpe(*fallback(), size=420, limit_alphabet=40))
    made = Tokenizer.from_str(plain_bytes(made))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    made.post_processor = first(made, "<s>")
    return made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma() -> Made:
    """Bytes as fallback and a BOS, but no space before the text, and none stripped."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trained(made, bpe(*fallback(), "<end_of_turn>", size=420, limit_alphabet=40))
    made = Tokenizer.from_str(plain_bytes(made))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = first(made, "<s>")
    return made, {"bos_token": "<s>", "eos_token": "<end_of_turn>", "unk_token": "<unk>"}


def plain_bytes(made: Tokenizer) -> str:
    """The bytes are tokens of the model, and no added ones."""
    page = json.loads(made.to_str())
    page["added_tokens"] = [t for t in page["added_tokens"] if not t["content"].startswith("<0x")]
    return json.dumps(page)


def metaspace(scheme: str) -> Made:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme != "first")
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trained(made, bpe("<unk>", "</s>", size=200))
    return made, {"eos_token": "</s>", "unk_token": "<unk>"}


def t5() -> Made:
    """Unigram; an end after the text."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=specials, unk_token="<unk>", show_progress=False)
    trained(made, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made, {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def bert() -> Made:
    """WordPiece, lower case; tokens before and after the text."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained(made, trainers.WordPieceTrainer(vocab_size=220, special_tokens=names, show_progress=False))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    uses = ("pad", "unk", "cls", "sep", "mask")
    return made, {f"{use}_token": f"[{use.upper()}]" for use in uses}


def roberta() -> Made:
    """Byte-level with a space first; a mask that takes the space before it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    trained(made, bpe("<s>", "<pad>", "</s>", initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True
    )
    return made, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}


def clip() -> Made:
    """Words end in a suffix."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder()
    trained(made, bpe("<unk>", "<end>", size=200, end_of_word_suffix="</w>"))
    return made, {"eos_token": "<end>", "unk_token": "<unk>"}


def words() -> Made:
    """Whole words, and no decoder: they are joined by spaces."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trained(made, trainers.WordLevelTrainer(special_tokens=["<unk>", "<eos>"], show_progress=False))
    return made, {"eos_token": "<eos>", "unk_token": "<unk>"}


def added() -> Made:
    """Added tokens of every sort, on a base that strips and lowers."""
    made, said = metaspace("always")
    made.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    made.add_special_tokens([
        AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<lower>", normalized=True), AddedToken("whole", single_word=True, normalized=False),
    ])  # fmt: skip
    made.add_tokens([AddedToken("<plain>", special=False), AddedToken("catnip", single_word=True, special=False)])
    return made, said


KINDS: dict[str, Callable[[], Made]] = {
    "gpt2": gpt2, "llama3": llama3, "llama2": llama2, "gemma": gemma, "t5": t5, "bert": bert, "roberta": roberta,
    "clip": clip, "words": words, "added": added, "metaspace_always": lambda: metaspace("always"),
    "metaspace_first": lambda: metaspace("first"), "metaspace_never": lambda: metaspace("never"),
}  # fmt: skip

TEXTS = [
    "",
    " ",
    "the cat sat on the mat",
    "  Two spaces, a\ttab and it's 42!\n\n    def f(x):\n",
    "Grüße, 你好 🦜 unseen ‱ 𝔘",
    "the <s> cat</s> <|im_start|>user\nhi<|im_end|> <|begin_of_text|>x<|eot_id|>",
    "a [MASK] b <mask> c [SEP] <think>hm</think> <end_of_turn> <eos> <end>",
    "x  <left> y <right>  z <LOWER> whole wholesome <plain> catnip catnips <lower>",
]


@cache
def page(kind: str) -> tuple[str, str]:
    """The content of tokenizer.json and of tokenizer_config.json."""
    made, said = KINDS[kind]()
    return made.to_str(), json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **said})


def write(kind: str, folder: Path) -> Path:
    """A folder with the tokenizer of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("tokenizer.json", "tokenizer_config.json"), page(kind), strict=True):
        (folder / name).write_text(text, "utf-8")
    return folder
