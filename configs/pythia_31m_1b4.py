"""The paper's first pair: Pythia-31M drafts for Pythia-1.4B (AdaSPEC, arXiv 2510.19779, main table).

    python -m adaspec_jax.train --config configs/pythia_31m_1b4.py:gsm8k --workdir runs/pythia_gsm8k

Variants: gsm8k, alpaca, mbpp, cnn_dailymail, xsum (the paper's optimal epochs), each also as NAME_3epoch. Published
acceptance, DistillSpec -> AdaSPEC, stands in `ROWS`. Hardware: one chip with 16 GB, by docs/plan.md; nothing of it was
run. `python -m adaspec_jax.plan --config configs/pythia_31m_1b4.py --topology v5e:1x1` says before a run what fits
where; `memory="auto"` then gives up what it must. Weights and tokenizer come from the hub. What is ours and what the
released scripts', says adaspec_jax/paper.py.

The official code drops the vocabulary's padding rows; here they stay and are masked, so that checkpoints serve.
"""

from adaspec_jax import paper
from adaspec_jax.config import Draft, Experiment, GPTNeoX, Target
from adaspec_jax.paper import Row

PYTHIA_31M = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024}
PYTHIA_1B4 = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192}
# batch size, learning rate, best epochs of target, reference and draft; published acceptance then and after 3 epochs
ROWS = {
    "gsm8k": Row(16, 3e-4, (6, 15, 30), (66.19, 68.28), (57.58, 62.63)),
    "alpaca": Row(16, 3e-4, (1, 15, 30), (65.41, 65.79), (44.34, 47.25)),
    "mbpp": Row(8, 1e-5, (1, 30, 6), (49.88, 65.12), (46.88, 47.73)),
    "cnn_dailymail": Row(16, 1e-4, (1, 10, 10), (80.15, 80.89), (73.05, 74.22)),
    "xsum": Row(16, 3e-4, (1, 10, 10), (56.11, 57.80), (47.24, 49.11)),
}


def get_config(variant: str = "gsm8k") -> Experiment:
    return paper.experiment(
        "pythia_31m_1b4",
        variant,
        ROWS,
        tokenizer="EleutherAI/pythia-31m",
        target=Target(init="EleutherAI/pythia-1.4b", architecture=GPTNeoX(**PYTHIA_1B4)),
        draft=Draft(init="EleutherAI/pythia-31m", architecture=GPTNeoX(**PYTHIA_31M)),
    )
