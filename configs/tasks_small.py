"""All five tasks of the paper in minutes on two CPU cores: small models from scratch on a part of the real data.

    python -m adaspec_jax.train --config configs/tasks_small.py:xsum --workdir runs/tasks_xsum

Variants: gsm8k, alpaca, mbpp, cnn_dailymail, xsum. Data: `ADASPEC_DATA`, else tensorflow-datasets or the hub. Where
only a test split is at hand (CNN/DailyMail, XSum), disjoint rows of it stand for training and evaluation. They show
that every task goes through the pipeline, not what the method gives: `benchmarks/results/tasks/` has the reports.
"""

import dataclasses

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

ONE_SPLIT = {"train_rows": "0:800", "evaluation_split": "test", "evaluation_rows": "800:1000", "train_split": "test"}
# what is read, epochs of every stage
TASKS = {
    "gsm8k": (Data(task="gsm8k", train_rows="0:2400", evaluation_rows="0:200"), 1),
    "alpaca": (
        Data(task="alpaca", evaluation_split="train", evaluation_rows="0:200", train_rows="200:2600"),
        1,
    ),
    "mbpp": (Data(task="mbpp"), 6),
    "cnn_dailymail": (Data(task="cnn_dailymail", **ONE_SPLIT), 3),
    "xsum": (Data(task="xsum", **ONE_SPLIT), 3),
}


def get_config(variant: str = "gsm8k") -> Experiment:
    if variant not in TASKS:
        raise UserError(f'tasks_small has no variant "{variant}"{did_you_mean(variant, TASKS)}')
    data, epochs = TASKS[variant]
    lengths = {"max_length": 320, "max_prompt_length": 192, "buckets": (128, 192, 256, 320), "length_window": 16}
    sizes = {"vocab_size": 2048, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"batch_size": 16, "schedule": "cosine", "warmup_steps": 10}
    return Experiment(
        data=dataclasses.replace(data, **lengths),
        tokenizer=Tokenizer(init="train", vocab_size=2048),
        target=Target(architecture=target, epochs=2 * epochs, lr=3e-3, **fit),
        reference=Reference(epochs=epochs, lr=3e-3, equal_data=True, **fit),
        draft=Draft(architecture=draft, epochs=epochs, lr=3e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=64),
    )
