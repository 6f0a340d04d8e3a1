"""The paper's first pair: Pythia-31M drafts for Pythia-1.4B (AdaSPEC, arXiv 2510.19779, main table).

    python -m adaspec_jax.train --config configs/pythia_31m_1b4.py:gsm8k --workdir runs/pythia_gsm8k

Hardware: fine-tuning the target in float32 takes 22.6 GB for parameters, gradients and moments alone (computed from
1.41 billion parameters; not run). Weights and tokenizer come from the hub.
Published acceptance, DistillSpec -> AdaSPEC: `gsm8k_3epoch` 57.58 -> 62.63 %, `gsm8k` (optimal epochs 6-15-30)
66.19 -> 68.28 %. Where the paper and the released scripts differ, the scripts are followed: target learning rate 1e-5,
and the draft's epochs and batch in units of selected tokens (`draft.budget="official"`).

The official code drops the vocabulary's padding rows; here they stay and are masked, so that checkpoints serve.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError, did_you_mean

PYTHIA_31M = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024}
PYTHIA_1B4 = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192}

# variant: epochs of target, reference and draft
EPOCHS = {"gsm8k": (6, 15, 30), "gsm8k_3epoch": (3, 3, 3)}


def get_config(variant: str = "gsm8k") -> Experiment:
    if variant not in EPOCHS:
        raise UserError(f'pythia_31m_1b4 has no variant "{variant}"{did_you_mean(variant, EPOCHS)}')
    target, reference, draft = EPOCHS[variant]
    return Experiment(
        data=Data(task="gsm8k", max_length=512),
        tokenizer=Tokenizer(init="EleutherAI/pythia-31m"),
        target=Target(
            init="EleutherAI/pythia-1.4b", architecture=GPTNeoX(**PYTHIA_1B4), epochs=target, batch_size=16, lr=1e-5
        ),
        reference=Reference(epochs=reference, batch_size=16, lr=3e-4),
        draft=Draft(
            init="EleutherAI/pythia-31m",
            architecture=GPTNeoX(**PYTHIA_31M),
            epochs=draft,
            batch_size=16,
            lr=3e-4,
            fraction=0.4,
        ),
        evaluation=Evaluation(num_prompts=1319, batch_size=16, max_new_tokens=256),
    )
