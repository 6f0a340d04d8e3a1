"""The whole method in minutes on a laptop: generated word problems, models trained from scratch, no network.

    bash launch/quickstart.sh

Heads are of 32, the least that every engine takes (`docs/serving.md`). Hardware: 2 CPU cores. What it gave is in
`benchmarks/results/quickstart.json`.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'quickstart has no variants, so not "{variant}" either')
    sizes = {"vocab_size": 1024, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"schedule": "cosine", "warmup_steps": 20}
    return Experiment(
        data=Data(task="word_problems", num_train=4000, max_length=256, buckets=(144, 176, 256), length_window=16),
        tokenizer=Tokenizer(init="train", vocab_size=1024),
        target=Target(architecture=target, epochs=2, batch_size=16, lr=3e-3, **fit),
        reference=Reference(epochs=1, batch_size=8, lr=3e-3, **fit),
        draft=Draft(architecture=draft, epochs=1, batch_size=8, lr=3e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=8, max_new_tokens=128),
    )
