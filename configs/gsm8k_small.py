"""Real GSM8K on two CPU cores: all models trained from scratch on the training set, measured on the test set.

    python -m adaspec_jax.train --config configs/gsm8k_small.py --workdir runs/gsm8k_small

Data: `ADASPEC_DATA/gsm8k/{train,test}.jsonl[.gz]`, else tensorflow-datasets, else the hub. Hardware: 2 CPU cores, 44
minutes.

`:validation` trains on all but the last 500 training problems and measures on those: choose settings there.
What it gave is in `benchmarks/results/gsm8k_small.json`.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant not in ("", "validation"):
        raise UserError(f'gsm8k_small has the variant "validation", not "{variant}"')
    sizes = {"vocab_size": 4096, "max_position_embeddings": 1024}
    target = GPTNeoX(hidden_size=160, num_hidden_layers=3, num_attention_heads=5, intermediate_size=640, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"batch_size": 16, "schedule": "cosine", "warmup_steps": 50}
    rows = {"train_rows": "0:6973", "evaluation_split": "train", "evaluation_rows": "6973:7473"}
    return Experiment(
        data=Data(
            task="gsm8k",
            max_length=384,
            buckets=(128, 192, 256, 320, 384),
            length_window=16,
            **(rows if variant else {}),
        ),
        tokenizer=Tokenizer(init="train", vocab_size=4096),
        target=Target(architecture=target, epochs=3, lr=2e-3, **fit),
        reference=Reference(epochs=2, lr=3e-3, **fit),
        draft=Draft(architecture=draft, epochs=2, lr=3e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=500, batch_size=8, max_new_tokens=128),
    )
