"""A family of three models for decoding through a middle one (PyramidSD): generated word problems, minutes on a laptop.

    python -m adaspec_jax.train --config configs/pyramid.py --workdir runs/pyramid

The quickstart's target, deeper and wider, a qualifier of an eighth of its parameters, and the quickstart's draft. Both
are distilled from the target, each on its own: the qualifier on every label, the draft with and without selection.
Hardware: 2 CPU cores.
"""

from adaspec_jax.config import (
    Data,
    Draft,
    Evaluation,
    Experiment,
    GPTNeoX,
    Qualifier,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'pyramid has no variants, so not "{variant}" either')
    sizes = {"vocab_size": 1024, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024, **sizes)
    qualifier = GPTNeoX(hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=384, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"schedule": "cosine", "warmup_steps": 20}
    return Experiment(
        data=Data(task="word_problems", num_train=4000, max_length=256, buckets=(144, 176, 256), length_window=16),
        tokenizer=Tokenizer(init="train", vocab_size=1024),
        target=Target(architecture=target, epochs=2, batch_size=16, lr=2e-3, **fit),
        reference=Reference(epochs=1, batch_size=8, lr=3e-3, **fit),
        draft=Draft(architecture=draft, epochs=1, batch_size=8, lr=3e-3, fraction=0.4, **fit),
        qualifier=Qualifier(architecture=qualifier, epochs=1, batch_size=8, lr=4e-3, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=8, max_new_tokens=128),
    )
