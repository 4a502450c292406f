"""Tokenizers whose vocabularies are strange to that of tests/models/language/world.py: they cut the same texts
otherwise."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from tests.models.language.world import tiny_model

NUMBERS = [str(number) for number in range(10, 19)]
"""One token of a stranger; the student's tokenizer has digits alone."""
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] }}{% if m['role'] == 'assistant' %}"
    "{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


def byte_pairs() -> Any:
    """Bytes as letters, as GPT-2 has them, with numbers and runs of letters as tokens; another end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|pad|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator([*NUMBERS * 9, *["привет", "isis hathat"] * 5, "what is plus"], trainer)
    return _fast(made, "<|endoftext|>", "<|pad|>")


def sentence_pieces(spaces: str = "never") -> Any:
    """Characters with `▁` for a space, and bytes for what is none of them, as SentencePiece has them. `spaces`: where
    it puts one before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    known = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    known += ["▁", *string.ascii_letters, *string.digits, *"?!.,:<>\n"]
    merges = [*((number[0], number[1]) for number in NUMBERS), ("▁", "w"), ("a", "t")]
    known += ["".join(pair) for pair in merges]
    made = Tokenizer(
        models.BPE({each: place for place, each in enumerate(known)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=spaces, split=False)
    decoding = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*decoding, *([] if spaces == "never" else [decoders.Strip(" ", 1, 0)])])
    return _fast(made, "</s>", "<s>")


def spaced_pieces() -> Any:
    """As those of Llama 2 and Mistral: every text begins with a space, which decoding takes away again."""
    return sentence_pieces("always")


STRANGERS = {"byte pairs": byte_pairs, "sentence pieces": sentence_pieces}
"""Tokens of these spell a text as it is."""
_ALL = {**STRANGERS, "spaced pieces": spaced_pieces}


def strange(folder: Path, kind: str = "byte pairs", **options: Any) -> str:
    """A model with such a tokenizer, saved there; its ref."""
    return tiny_model(folder, tokenizer=_ALL[kind](), **options)


def _fast(made: Any, end: str, padding: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=padding, model_max_length=256, padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
