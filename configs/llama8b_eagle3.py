"""An EAGLE-3 head for Llama-3.1-8B on TPUs: a shape to plan, and to train where the weights are.

    python -m adaspec_jax.plan --config configs/llama8b_eagle3.py --topology v5e:2x4 --stages reference,draft,decode

The head has seven training steps and a vocabulary of 32,000 of the target's 128,256 tokens, as the released code has it
(arXiv 2503.01840). Hardware: 8 TPU v5e chips, by what the plan says of them.
"""

from adaspec_jax.config import (
    Data,
    Draft,
    Evaluation,
    Experiment,
    Llama,
    Llama3Rope,
    Mesh,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError

SIZES = {"vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
SIZES |= {"num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131072, "rope_theta": 5e5}
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALING |= {"original_max_position_embeddings": 8192}


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'llama8b_eagle3 has no variants, so not "{variant}" either')
    fit = {"epochs": 2, "batch_size": 16, "lr": 5e-5, "schedule": "linear", "warmup_steps": 500, "weight_decay": 0.0}
    fit |= {"beta2": 0.95, "clip_norm": 0.5}
    return Experiment(
        dtype="bfloat16",
        data=Data(task="alpaca_chats", max_length=1024, buckets=(512, 1024)),
        tokenizer=Tokenizer(init="target"),
        target=Target(
            init="meta-llama/Llama-3.1-8B-Instruct",
            architecture=Llama(**SIZES, rope_scaling=Llama3Rope(**SCALING)),
            epochs=0,
        ),
        reference=Reference(**fit),
        draft=Draft(kind="eagle3", head="steps=7,vocabulary=32000", fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=80, batch_size=8, max_new_tokens=128, draft_length=5),
        mesh=Mesh(data=1, fsdp=-1, draft="replicated"),
        memory="auto",
    )
