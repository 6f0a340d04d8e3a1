"""Gemma-3-270M drafts for Gemma 3 of 4B (the default), 12B and 27B: the models that people serve on TPUs.

    python -m adaspec_jax.plan --config configs/gemma3.py:12b --topology v5e:2x4
    python -m adaspec_jax.train --config configs/gemma3.py:4b --workdir runs/gemma3_4b

The targets' checkpoints are of text and images; their text part is read, and said so. It has 262,208 vocabulary rows
(64 of them for images) and the stock draft 262,144: the draft gets the target's, as it must to be verified. Two thirds
of the draft are its embeddings. The target is taken as it is, and its own answers to Alpaca's prompts, sampled once,
are what the draft learns to guess.

Hardware, as compiled (docs/plan.md): 4B takes 14.2 of the 15.75 GiB of one v5e chip, where distilling reference and
draft takes 3.7 hours, so rather one v6e, 0.8 hours; 12B just one v6e, 2.1 hours. On eight v5e chips 12B and 27B can be
trained against, in 1.2 and 2.6 hours, and not decoded with: of a target that is cut over chips each then holds far
more than its part at once, 16.1 and 20.2 GiB, so that answers and acceptance need chips with more memory. The target's
answers before training take at most 2, 11 and 26 hours, by sizes alone. Nothing of it was run. Sizes give the published
numbers of parameters (3.88, 11.77 and 27.01 billion in the text part) and were written from memory of the published
config.json files: `--config.target.architecture=None` reads these.
"""

from adaspec_jax.config import (
    Answers,
    Data,
    Draft,
    Evaluation,
    Experiment,
    Gemma3Text,
    LinearRope,
    Mesh,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError, did_you_mean

SIZES = {
    "4b": {
        **{"hidden_size": 2560, "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4},
        **{"intermediate_size": 10240},
    },
    "12b": {
        **{"hidden_size": 3840, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 8},
        **{"intermediate_size": 15360},
    },
    "27b": {
        **{"hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16},
        **{"intermediate_size": 21504, "head_dim": 128, "query_pre_attn_scalar": 168},
    },
}
DRAFT = "google/gemma-3-270m-it"
ROWS, WINDOW, CONTEXT = 262208, 1024, 131072


def get_config(variant: str = "4b") -> Experiment:
    name = variant or "4b"
    if name not in SIZES:
        raise UserError(f'gemma3 has no variant "{name}"{did_you_mean(name, SIZES)}')
    long = {"max_position_embeddings": CONTEXT, "rope_scaling": LinearRope(factor=8.0)}
    whole = Gemma3Text(vocab_size=ROWS, sliding_window=WINDOW, **SIZES[name], **long)
    lengths = (128, 192, 256, 384, 512)
    fit = {"epochs": 2, "batch_size": 16, "lr": 1e-4, "schedule": "cosine", "warmup_steps": 100}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="alpaca_chats", max_length=512, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(init=f"google/gemma-3-{name}-it", architecture=whole, epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(**fit),
        draft=Draft(init=DRAFT, architecture=Gemma3Text(vocab_size=ROWS), fraction=0.4, budget="equal_compute", **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1, draft="replicated"),
    )
