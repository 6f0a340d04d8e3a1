"""Heads for a real chat model of 30 layers: what `configs/smollm2.py:dataset` does with a cut draft, with a head.

    python -m adaspec_jax.train --config configs/smollm2_heads.py:eagle3 --workdir runs/smollm2_eagle3

Variants: the keys of `KINDS` (eagle3 is the default); of these pard, specdec and specdec_pp are draft models cut from
the target, that guess at mask tokens or have a stop head fitted on. The weights come from the hub, or from a
directory: `--config.target.init=DIR`. `--config.teacher_store=DIR` keeps the target's hidden states where runs of all
kinds find them. Hardware: two CPU cores.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Llama, Llama3Rope, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

SIZES = {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
SIZES |= {"num_key_value_heads": 3, "intermediate_size": 1536, "max_position_embeddings": 8192, "rope_theta": 1e5}
SIZES |= {"rope_scaling": Llama3Rope(rope_type="default")}
KINDS = {"eagle": "steps=1", "eagle3": "steps=3,vocabulary=8192"}
KINDS |= {"medusa": "heads=3", "hydra": "heads=3", "hydra_plus": "heads=3"}
KINDS |= {"mtp": "steps=3", "kangaroo": "exit_layer=5"}
KINDS |= {"pard": "guesses=4", "specdec": "guesses=4", "specdec_pp": "lr=0.0003,epochs=1"}
KINDS |= {"amphista": "heads=3", "ctc": "steps=1"}
KINDS |= {"dflash": "block=5,depth=3,hard=false,anchors=64", "p_eagle": "steps=4,depth=1,vocabulary=8192"}
KINDS |= {"falcon": "block=2,linear=true", "pass": "slots=4"}


def get_config(variant: str = "eagle3") -> Experiment:
    kind = variant or "eagle3"
    if kind not in KINDS:
        raise UserError(f'smollm2_heads has no variant "{kind}"{did_you_mean(kind, KINDS)}')
    fit = {"epochs": 1, "batch_size": 8, "lr": 3e-4, "schedule": "cosine", "warmup_steps": 10, "clip_norm": 0.5}
    rows = {"train_rows": "200:800", "evaluation_split": "train", "evaluation_rows": "0:100"}
    model = {"init": "cut", "architecture": None} if kind in ("pard", "specdec", "specdec_pp") else {}
    return Experiment(
        data=Data(task="alpaca_chats", max_length=256, buckets=(128, 192, 256), length_window=16, **rows),
        tokenizer=Tokenizer(init="target"),
        target=Target(init="HuggingFaceTB/SmolLM2-135M-Instruct", architecture=Llama(**SIZES), epochs=0),
        reference=Reference(**fit),
        draft=Draft(kind=kind, head=KINDS[kind], fraction=0.4, **model, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=4, max_new_tokens=96, draft_length=4),
        memory="auto",
    )
