"""True Pythia shapes from random weights on real GSM8K: for a GPU, in calls that may be cut short.

    timeout 560 python -m adaspec_jax.train --config configs/pythia_shapes.py:160m --workdir runs/shape_160m

Variants: 160m and 410m, the target; the draft has the shape of Pythia-31M. The same command goes on where it was
stopped. Hardware: one GPU with 16 GB or more; nothing was run on one. Data: `ADASPEC_DATA/gsm8k`, else
tensorflow-datasets or the hub, which also has the tokenizer; `--config.tokenizer.init=DIR` takes one from a directory.
It is for step times and for the whole path at the real vocabulary; models from scratch accept what such models do.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

TARGETS = {
    "160m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "410m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
PYTHIA_31M = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024}


def get_config(variant: str = "160m") -> Experiment:
    if variant not in TARGETS:
        raise UserError(f'pythia_shapes has no variant "{variant}"{did_you_mean(variant, TARGETS)}')
    fit = {"batch_size": 16, "schedule": "cosine", "warmup_steps": 50}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="gsm8k", max_length=384, buckets=(128, 192, 256, 320, 384), length_window=16),
        tokenizer=Tokenizer(init="EleutherAI/pythia-31m"),
        target=Target(architecture=GPTNeoX(**TARGETS[variant]), epochs=3, lr=5e-4, **fit),
        reference=Reference(epochs=2, lr=1e-3, equal_data=True, **fit),
        draft=Draft(architecture=GPTNeoX(**PYTHIA_31M), epochs=2, lr=1e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=16, max_new_tokens=128),
        checkpoint_every=100,
    )
