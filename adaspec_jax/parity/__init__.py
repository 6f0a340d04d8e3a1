"""A finished run's pair in PyTorch and transformers: does it decode there what it decodes here? Extra `parity`.

torch and transformers are imported inside functions only.
"""

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


def __getattr__(name: str):
    """These names, imported when one is asked for: `--help` need not wait for jax."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import adaspec_jax.parity.agreement as agreement
    import adaspec_jax.parity.answers as answers
    import adaspec_jax.reporting.certificate as words

    return next(getattr(module, name) for module in (agreement, answers, words) if hasattr(module, name))
