"""Ministral-8B with a draft of a quarter of its layers: for a model that has no small sister.

    python -m adaspec_jax.plan --config configs/ministral8b.py --topology v5e:2x4
    python -m adaspec_jax.train --config configs/ministral8b.py --workdir runs/ministral8b

The draft is cut from the target, with its embeddings and its head, each a fifteenth of it, and distilled on the
target's own answers to Alpaca's prompts. Its windows, of 32,768 tokens, are as long as its texts may be: they hide
nothing.

Hardware (docs/plan.md): one chip of v5e or v6e is too small, as compiled; on eight of v5e distilling reference and
draft takes about 1.4 hours, and the target's answers before that at most 7.6, by sizes alone. Decoding
needs far more than sizes say where a target is cut over chips (see configs/gemma3.py). Nothing of it was run. Its
published config.json calls it "mistral", which computes the same; `--config.target.architecture=None` reads that.
"""

from adaspec_jax.config import (
    Answers,
    Data,
    Draft,
    Evaluation,
    Experiment,
    Mesh,
    Ministral,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'ministral8b has no variants, so not "{variant}" either')
    lengths = (128, 192, 256, 384, 512)
    fit = {"epochs": 2, "batch_size": 16, "lr": 1e-4, "schedule": "cosine", "warmup_steps": 100}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="alpaca_chats", max_length=512, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(init="mistralai/Ministral-8B-Instruct-2410", architecture=Ministral(), epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(**fit),
        draft=Draft(init="cut", architecture=None, fraction=0.4, budget="equal_compute", **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1),
    )
