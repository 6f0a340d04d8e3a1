"""Heads on a model of tokens that are no text, after VADUSA (arXiv 2410.21951): 8-bit mu-law codes of voiced sounds.

    python -m adaspec_jax.train --config configs/signals.py --workdir runs/signals
    python benchmarks/signals.py --workdir runs/signals --json benchmarks/results/signals.json

VADUSA puts Medusa heads on a text-to-speech model's codes and lets guesses stay that one of several draws of the model
would be. Here the sounds are synthetic (`data.signals`: pulses through resonators), target and heads are trained from
scratch, and the rule is ours (`Tolerance`). No speech is made, and none of the paper's figures can be expected. Image
tokens, which the survey names beside speech, go the same way: a token model, heads, text whose characters are codes.

Variants: a kind of head, as in `configs/stories_heads.py`; medusa is the default. Hardware: two CPU cores, minutes.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

KINDS = {"medusa": "heads=4", "hydra": "heads=4", "eagle": "steps=1"}
ENTRIES = 1 + 256 + 256  # the end of text, the bytes of any other text, the codes


def get_config(variant: str = "medusa") -> Experiment:
    kind = variant or "medusa"
    if kind not in KINDS:
        raise UserError(f'signals has no variant "{kind}"{did_you_mean(kind, KINDS)}')
    sizes = {"vocab_size": ENTRIES, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512, **sizes)
    fit = {"schedule": "cosine", "warmup_steps": 20, "batch_size": 16, "lr": 3e-3}
    return Experiment(
        data=Data(task="signals", num_train=3000, num_evaluation=100, max_length=264, buckets=(264,)),
        tokenizer=Tokenizer(init="characters"),
        target=Target(architecture=target, epochs=3, **fit),
        reference=Reference(epochs=2, **fit),
        draft=Draft(kind=kind, head=KINDS[kind], fraction=0.4, epochs=2, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=128, draft_length=4, temperature=1.0),
    )
