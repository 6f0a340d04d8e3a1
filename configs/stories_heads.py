"""Heads for a real pretrained Llama: what `configs/stories.py` does with a draft model, with a head on its features.

    python -m adaspec_jax.train --config configs/stories_heads.py:eagle3 --workdir runs/stories_eagle3

Variants: the keys of `KINDS` (eagle3 is the default); of these pard, specdec and specdec_pp are draft models as in
`configs/stories.py`, that guess at mask tokens or have a stop head fitted on. Reference and draft are of that kind:
the reference on all labels, the draft on those where it lags most behind. Same target, text and prompts as there.
Hardware: two CPU cores, two to five minutes; pard takes longer.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Llama, Llama3Rope, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

SIZES = {"vocab_size": 512, "max_position_embeddings": 512, "rope_theta": 1e4, "hidden_size": 64}
SIZES |= {"num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 172}
SIZES |= {"rope_scaling": Llama3Rope(rope_type="default")}
# A draft that is no head: as in configs/stories.py.
SMALL = SIZES | {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 88}
KINDS = {"eagle": "steps=1", "eagle3": "steps=3", "medusa": "heads=4", "hydra": "heads=4", "hydra_plus": "heads=4"}
KINDS |= {"pard": "guesses=4", "specdec": "guesses=4", "specdec_pp": "lr=0.001"}
EPOCHS = {"eagle": 3, "eagle3": 1, "medusa": 2, "hydra": 2, "hydra_plus": 2}  # so that each takes about as long
KINDS |= {"kangaroo": "exit_layer=2", "mtp": "steps=3"}
EPOCHS |= {"kangaroo": 3, "mtp": 1, "pard": 2, "specdec": 2, "specdec_pp": 10}
KINDS |= {"amphista": "heads=4", "ctc": "steps=1"}
EPOCHS |= {"amphista": 1, "ctc": 3}
KINDS |= {"dflash": "block=5,depth=2,taps=0-2-4,hard=false,anchors=32", "p_eagle": "steps=4,depth=1"}
EPOCHS |= {"dflash": 7, "p_eagle": 2}
KINDS |= {"falcon": "block=2,linear=true", "pass": "slots=4"}
EPOCHS |= {"falcon": 4, "pass": 1}


def get_config(variant: str = "eagle3") -> Experiment:
    kind = variant or "eagle3"
    if kind not in KINDS:
        raise UserError(f'stories_heads has no variant "{kind}"{did_you_mean(kind, KINDS)}')
    fit = {
        "batch_size": 16,
        "schedule": "cosine",
        "warmup_steps": 20,
        "lr": 5e-3,
        "clip_norm": 0.5,
        "epochs": EPOCHS[kind],
    }
    reference, draft = dict(fit), dict(fit)
    if kind in ("pard", "specdec", "specdec_pp"):
        draft["architecture"] = Llama(**SMALL)
    if kind in ("pard", "specdec"):  # rows with masks are long, and few of them at once stay in a processor's cache
        reference["micro_batches"], draft["micro_batches"] = 16, 20
    return Experiment(
        data=Data(
            task="tinystories",
            train_rows="0:900",
            evaluation_split="train",
            evaluation_rows="900:1000",
            max_length=512,
            buckets=(256, 384, 512),
            length_window=16,
        ),
        tokenizer=Tokenizer(init="stories260K-hf"),
        target=Target(init="stories260K-hf", architecture=Llama(**SIZES), epochs=0),
        reference=Reference(**reference),
        draft=Draft(kind=kind, head=KINDS[kind], fraction=0.4, **draft),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=96, draft_length=4),
    )
