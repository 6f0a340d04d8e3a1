"""SmolLM2-135M (the default) or 360M drafts for SmolLM2-1.7B: a pair for one chip, or for one GPU.

    python -m adaspec_jax.plan --config configs/smollm2_pair.py:135m --topology v5e:1x1
    python -m adaspec_jax.train --config configs/smollm2_pair.py:360m --workdir runs/smollm2_360m

All are Llamas with one tokenizer of 49,152 tokens. The target is taken as it is, and its own answers to Alpaca's
prompts, sampled once, are what the draft learns to guess.

Hardware, by sizes alone (docs/plan.md): one v5e chip, on which distilling reference and draft takes about 1.7 hours
with 135M and 2.6 with 360M, and the target's answers before that at most 2.2; nothing of it was run.
"""

from adaspec_jax.config import (
    Answers,
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
from adaspec_jax.errors import UserError, did_you_mean

DRAFTS = {
    "135m": {
        **{"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
        **{"intermediate_size": 1536, "rope_theta": 1e5},
    },
    "360m": {
        **{"hidden_size": 960, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5},
        **{"intermediate_size": 2560, "rope_theta": 1e5},
    },
}
TARGET = {
    **{"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32},
    **{"intermediate_size": 8192, "rope_theta": 1.3e5},
}


def _llama(**sizes) -> Llama:
    plain = Llama3Rope(rope_type="default")
    return Llama(vocab_size=49152, max_position_embeddings=8192, rope_scaling=plain, **sizes)


def get_config(variant: str = "135m") -> Experiment:
    name = variant or "135m"
    if name not in DRAFTS:
        raise UserError(f'smollm2_pair has no variant "{name}"{did_you_mean(name, DRAFTS)}')
    lengths = (128, 192, 256, 384, 512)
    fit = {"epochs": 2, "batch_size": 16, "lr": 1e-4, "schedule": "cosine", "warmup_steps": 100}
    draft = f"HuggingFaceTB/SmolLM2-{name.upper()}-Instruct"
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="alpaca_chats", max_length=512, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(init="HuggingFaceTB/SmolLM2-1.7B-Instruct", architecture=_llama(**TARGET), epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(**fit),
        draft=Draft(init=draft, architecture=_llama(**DRAFTS[name]), fraction=0.4, budget="equal_compute", **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1, draft="replicated"),
    )
