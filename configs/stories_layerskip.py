"""A pretrained Llama tuned to exit early (LayerSkip, arXiv 2404.16710), with a Kangaroo adapter on its first layers.

    python -m adaspec_jax.train --config configs/stories_layerskip.py --workdir runs/stories_layerskip
    python -m adaspec_jax.benchmark --target runs/stories_layerskip/target --draft runs/stories_layerskip/draft \\
        --methods layerskip,kangaroo --prompts FILE

The target itself changes: what is decoded afterwards is the tuned model's text. Its first layers then draft for it,
alone (the method layerskip) or under the adapter (kangaroo). Same text and prompts as in `configs/stories_heads.py`;
`benchmarks/early_exit.py` holds the tuned model against the one before. Hardware: two CPU cores, minutes.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Llama, Llama3Rope, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError

SIZES = {"vocab_size": 512, "max_position_embeddings": 512, "rope_theta": 1e4, "hidden_size": 64}
SIZES |= {"num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 172}
SIZES |= {"rope_scaling": Llama3Rope(rope_type="default")}


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'stories_layerskip has no variants, so not "{variant}" either')
    rows = {"train_rows": "0:900", "evaluation_split": "train", "evaluation_rows": "900:1000"}
    fit = {"batch_size": 16, "schedule": "cosine"}
    on_first_layers = {"epochs": 1, "lr": 5e-3, "clip_norm": 0.5, "warmup_steps": 20}
    early = "p_max=0.1,curriculum=gradual"
    return Experiment(
        data=Data(task="tinystories", max_length=512, buckets=(256, 384, 512), length_window=16, **rows),
        tokenizer=Tokenizer(init="stories260K-hf"),
        target=Target(
            init="stories260K-hf",
            architecture=Llama(**SIZES),
            epochs=2,
            lr=5e-4,
            warmup_steps=10,
            early_exit=early,
            **fit,
        ),
        reference=Reference(**on_first_layers, **fit),
        draft=Draft(kind="kangaroo", head="exit_layer=2", fraction=0.4, **on_first_layers, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=96, draft_length=4),
    )
