"""Tokenizers: train a small one; where text begins and ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from adaspec_jax.data.chat.labels import closing_mark
from adaspec_jax.data.chat.template import special_tokens, template_of
from adaspec_jax.data.tokenizer_files import quiet_transformers
from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
_BYTES = 256


def train_bpe(texts: Iterable[str], *, vocab_size: int, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with single digits, lossless on any text; `<|endoftext|>` (id 0) is begin, end and padding.

    It stands for unknown text too, of which there is none, every byte being a token: engines ask for a name. With a
    `chat_template`, each of its marks (as in ``<|im_end|>``) is a token too, and that which closes the assistant's
    turns is the end of text. The same texts give the same tokenizer. It has `vocab_size` entries, or fewer where no
    pair occurs twice any more; UserError below 257 (every byte, and the end of text).
    """
    special = list(dict.fromkeys([END_OF_TEXT, *special_tokens(chat_template or "")]))
    least = _BYTES + len(special)
    if vocab_size < least:
        raise UserError(f"a byte-level tokenizer needs a vocabulary of at least {least}, not {vocab_size}")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Single digits: numbers of any length are spelt the same way, which is what a small model can learn to add.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = _as_fast(tokenizer, chat_template)
    if chat_template is not None and (mark := closing_mark(template_of(made))) is not None:
        made.eos_token = made.convert_ids_to_tokens(mark)
    return made


def _as_fast(tokenizer: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    with quiet_transformers() as transformers:
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=END_OF_TEXT,
            eos_token=END_OF_TEXT,
            pad_token=END_OF_TEXT,
            unk_token=END_OF_TEXT,
            clean_up_tokenization_spaces=False,
            model_max_length=1_000_000,  # the model's own limit is the config's business; no warning from here
            chat_template=chat_template,
        )


def train_characters(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A token for every character of the texts, by code point, after `<|endoftext|>` (id 0) and the 256 bytes.

    Lossless on any text: what the texts do not have is spelt in bytes. For text whose characters are codes (see
    `data.signals`).
    """
    from tokenizers import Tokenizer, decoders, models

    letters = sorted({letter for text in texts for letter in text})
    entries = [END_OF_TEXT, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *letters]
    vocab = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _as_fast(tokenizer, None)


def name_unknown(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a tokenizer that `train_bpe` made before it did so the name for unknown text; no id or text changes."""
    if tokenizer.unk_token is None:
        tokenizer.unk_token = END_OF_TEXT


class Ends(tuple):
    """Where a model's text ends: the ids, as `decoding.generate` takes them; -1 alone where it never does by itself."""

    closing: int  # of the ids, or the tokenizer's: what ends a row to train on, and pads

    def __new__(cls, ids: Iterable[int], closing: int) -> Ends:
        ends = super().__new__(cls, tuple(ids) or (-1,))
        ends.closing = closing
        return ends

    @property
    def ids(self) -> tuple[int, ...]:
        """Of tokens; none where the text never ends by itself."""
        return tuple(i for i in self if i >= 0)

    @property
    def recorded(self) -> int | list[int]:
        """As reports have it: one id, or several of which the first closes rows."""
        return self[0] if len(self) == 1 else sorted(self, key=lambda i: i != self.closing)

    @classmethod
    def of_record(cls, recorded: int | Sequence[int]) -> Ends:
        """What `recorded` says."""
        ids = (recorded,) if isinstance(recorded, int) else tuple(recorded)
        return cls((i for i in ids if i >= 0), max(ids[0], 0))


def ends_of_text(
    tokenizer: PreTrainedTokenizerBase, named: Sequence[int] | None = None, *, otherwise: Sequence[int] = ()
) -> Ends:
    """The ends that the model's files name (`named`; None: they name none), else the tokenizer's one; else UserError.

    `otherwise`: what may close a row where `named` is empty and the tokenizer has no end of text.
    """
    own = tokenizer.eos_token_id
    ids = tuple(dict.fromkeys(named)) if named is not None else () if own is None else (int(own),)
    closing = [own, *ids, *otherwise] if own in ids or not ids else [*ids]
    closing = [i for i in closing if i is not None]
    if not closing:
        raise UserError("neither the tokenizer nor the model's files name an end-of-text token (eos_token_id)")
    return Ends(ids, int(closing[0]))


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer puts before every text by itself: Llama's begin of text, nothing for most others."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return list(whole[:at])
