"""Phi-4-mini (3.8B) with a draft of a quarter of its layers: for a model that has no small sister.

    python -m adaspec_jax.plan --config configs/phi4_mini.py --topology v6e:1x1
    python -m adaspec_jax.train --config configs/phi4_mini.py --workdir runs/phi4_mini

The draft is cut from the target, with its embeddings, which are a sixth of it and two fifths of the draft, and
distilled on the target's own answers to Alpaca's prompts. Texts stay within the first 4,096 tokens, for which the
factors of the long context are not used; the key `adaspec_context` of config.json takes longer ones.

Hardware, as compiled (docs/plan.md): one v6e chip, on which distilling reference and draft takes about 1.6 hours, or
eight of v5e, 0.8 hours; one of v5e is too small. The target's answers before that take at most 2 and 3.7 hours, by
sizes alone. Nothing of it was run. The factors were written from memory of the published
config.json: `--config.target.architecture=None` reads that.
"""

from adaspec_jax.config import (
    Answers,
    Data,
    Draft,
    Evaluation,
    Experiment,
    LongRope,
    Mesh,
    Phi3,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError

LONG = (1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898)
LONG += (2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424)
LONG += (6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252)
LONG += (16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23)
LONG += (32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77)
PHI_4_MINI = Phi3(
    vocab_size=200064,
    num_attention_heads=24,
    num_key_value_heads=8,
    max_position_embeddings=131072,
    partial_rotary_factor=0.75,
    rope_scaling=LongRope(short_factor=(1.0,) * len(LONG), long_factor=tuple(map(float, LONG))),
    sliding_window=262144,
    tie_word_embeddings=True,
)


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'phi4_mini has no variants, so not "{variant}" either')
    lengths = (128, 192, 256, 384, 512)
    fit = {"epochs": 2, "batch_size": 16, "lr": 1e-4, "schedule": "cosine", "warmup_steps": 100}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="alpaca_chats", max_length=512, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(init="microsoft/Phi-4-mini-instruct", architecture=PHI_4_MINI, epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(**fit),
        draft=Draft(init="cut", architecture=None, fraction=0.4, budget="equal_compute", **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1),
    )
