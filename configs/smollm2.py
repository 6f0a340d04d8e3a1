"""A real chat model of 30 layers, and a draft cut from it: SmolLM2-135M-Instruct on Alpaca's prompts.

    python -m adaspec_jax.train --config configs/smollm2.py --workdir runs/smollm2
    python -m adaspec_jax.evaluate --target runs/smollm2/target --draft runs/smollm2/draft --task chat \\
        --data question.jsonl --max_length 512 --max_new_tokens 96 --json smollm2.json       # Spec-Bench, by turn

The weights come from the hub, or from a directory: `--config.target.init=DIR`. The draft is a quarter of the layers,
distilled with and without selection on the target's own answers at temperature 1; `:greedy` takes those at temperature
0, and `:dataset` Alpaca's, same prompts. So short a training has 16 to 19 % of guesses accepted (docs/results.md).
Hardware: two CPU cores, where `:dataset` took 23 minutes beside other work.
"""

from adaspec_jax.config import (
    Answers,
    Data,
    Draft,
    Evaluation,
    Experiment,
    Llama,
    Llama3Rope,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError, did_you_mean

SIZES = {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
SIZES |= {"num_key_value_heads": 3, "intermediate_size": 1536, "max_position_embeddings": 8192, "rope_theta": 1e5}
SIZES |= {"rope_scaling": Llama3Rope(rope_type="default")}
ANSWERS = {
    "": Answers(source="target", temperature=1.0, max_new_tokens=128),
    "greedy": Answers(source="target", temperature=0.0, max_new_tokens=128),
    "dataset": Answers(source="dataset"),
}


def get_config(variant: str = "") -> Experiment:
    if variant not in ANSWERS:
        raise UserError(f'smollm2 has no variant "{variant}"{did_you_mean(variant, ANSWERS)}')
    fit = {"batch_size": 8, "lr": 3e-4, "schedule": "cosine", "warmup_steps": 10}
    rows = {"train_rows": "200:800", "evaluation_split": "train", "evaluation_rows": "0:100"}
    return Experiment(
        data=Data(task="alpaca_chats", preview=1, max_length=256, buckets=(128, 192, 256), length_window=16, **rows),
        tokenizer=Tokenizer(init="target"),
        target=Target(init="HuggingFaceTB/SmolLM2-135M-Instruct", architecture=Llama(**SIZES), epochs=0),
        answers=ANSWERS[variant],
        reference=Reference(epochs=1, **fit),
        draft=Draft(init="cut", architecture=None, epochs=1, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=4, max_new_tokens=96),
        memory="auto",
    )
