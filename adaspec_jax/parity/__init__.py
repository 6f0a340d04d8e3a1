"""A finished run's pair in PyTorch and transformers: does it decode there what it decodes here? Extra `parity`.

torch and transformers are imported inside functions only.
"""

from adaspec_jax.parity.agreement import certificate, compare_pairs, held_out, store
from adaspec_jax.parity.answers import Answer, decode, decode_in_torch, load_in_torch, recount
from adaspec_jax.reporting.certificate import in_words

__all__ = [
    "Answer",
    "certificate",
    "compare_pairs",
    "decode",
    "decode_in_torch",
    "held_out",
    "in_words",
    "load_in_torch",
    "recount",
    "store",
]
