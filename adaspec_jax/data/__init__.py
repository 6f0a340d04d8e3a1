"""Text to batches: tasks, where their rows come from, tokenizers, and padded batches of tokens."""

from adaspec_jax.data.batches import Encoded, encode, num_steps, prompt_batches, train_batches
from adaspec_jax.data.contamination import shared_prompts, without_shared
from adaspec_jax.data.sources import Source, load_examples
from adaspec_jax.data.tasks import TASKS, Example, Task, columns_task
from adaspec_jax.data.token_store import TokenStore, free_bytes, row_batches, size_in_words
from adaspec_jax.data.tokenization import (
    check_fits,
    check_same_tokenizer,
    end_of_text_id,
    fingerprint,
    first_difference,
    load_tokenizer,
    opening,
    rows_needed,
    train_bpe,
)

__all__ = [
    "TASKS",
    "Encoded",
    "Example",
    "Source",
    "Task",
    "TokenStore",
    "check_fits",
    "check_same_tokenizer",
    "columns_task",
    "encode",
    "end_of_text_id",
    "fingerprint",
    "first_difference",
    "free_bytes",
    "load_examples",
    "load_tokenizer",
    "num_steps",
    "opening",
    "prompt_batches",
    "row_batches",
    "rows_needed",
    "shared_prompts",
    "size_in_words",
    "train_batches",
    "train_bpe",
    "without_shared",
]
