"""Text to batches: tasks, where their rows come from, tokenizers, and padded batches of tokens."""

from adaspec_jax.data import chat
from adaspec_jax.data.batches import num_steps, prompt_batches, train_batches
from adaspec_jax.data.contamination import shared_prompts, without_shared
from adaspec_jax.data.encoded import Encoded
from adaspec_jax.data.encoding import chat_of, encode, encode_for_prompts
from adaspec_jax.data.packing import packed
from adaspec_jax.data.rows import parse_rows
from adaspec_jax.data.sources import Source, digest, load_examples
from adaspec_jax.data.tasks import CHAT, TASKS, AnyExample, Example, Task, columns_task
from adaspec_jax.data.texts import Growing, continuation, pieces, prompt_ids, text_of
from adaspec_jax.data.token_classes import TOKEN_CLASSES, token_class, token_classes
from adaspec_jax.data.token_store import TokenStore, free_bytes, row_batches, size_in_words
from adaspec_jax.data.tokenization import Ends, ends_of_text, name_unknown, opening, train_bpe, train_characters
from adaspec_jax.data.tokenizer_files import NoTokenizer, load_by_class, load_tokenizer, notes_on
from adaspec_jax.data.tokenizer_identity import (
    check_fits,
    check_same_tokenizer,
    fingerprint,
    first_difference,
    rows_needed,
)
from adaspec_jax.data.vocabularies import side_by_side

__all__ = [
    "CHAT",
    "AnyExample",
    "TASKS",
    "TOKEN_CLASSES",
    "chat",
    "Encoded",
    "Ends",
    "NoTokenizer",
    "Example",
    "Growing",
    "Source",
    "Task",
    "TokenStore",
    "chat_of",
    "check_fits",
    "check_same_tokenizer",
    "columns_task",
    "digest",
    "encode",
    "encode_for_prompts",
    "ends_of_text",
    "fingerprint",
    "first_difference",
    "free_bytes",
    "load_by_class",
    "load_examples",
    "load_tokenizer",
    "continuation",
    "name_unknown",
    "notes_on",
    "num_steps",
    "opening",
    "packed",
    "pieces",
    "parse_rows",
    "prompt_batches",
    "prompt_ids",
    "row_batches",
    "rows_needed",
    "shared_prompts",
    "side_by_side",
    "size_in_words",
    "text_of",
    "token_class",
    "token_classes",
    "train_batches",
    "train_bpe",
    "train_characters",
    "without_shared",
]
