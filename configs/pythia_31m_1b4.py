"""The paper's first pair: Pythia-31M drafts for Pythia-1.4B (AdaSPEC, arXiv 2510.19779, main table).

    python -m adaspec_jax.train --config configs/pythia_31m_1b4.py:gsm8k --workdir runs/pythia_gsm8k

Variants and their published acceptance in percent, DistillSpec -> AdaSPEC, at the paper's optimal epochs, and after
three of each stage (NAME_3epoch):

    gsm8k          66.19 -> 68.28   57.58 -> 62.63
    alpaca         65.41 -> 65.79   44.34 -> 47.25
    mbpp           49.88 -> 65.12   46.88 -> 47.73
    cnn_dailymail  80.15 -> 80.89   73.05 -> 74.22
    xsum           56.11 -> 57.80   47.24 -> 49.11

Hardware: one chip with 16 GB, by docs/plan.md; nothing of it was run. `python -m adaspec_jax.plan --config
configs/pythia_31m_1b4.py --topology v5e:1x1` says before a run what fits where; `memory="auto"` then gives up what it
must. Weights and tokenizer come from the hub.

The official code drops the vocabulary's padding rows; here they stay and are masked, so that checkpoints serve.
What is ours and what the released scripts', says `adaspec_jax.config.paper.experiment`.
"""

from adaspec_jax.config import Draft, Experiment, GPTNeoX, Target, paper

PYTHIA_31M = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024}
PYTHIA_1B4 = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192}


def get_config(variant: str = "gsm8k") -> Experiment:
    return paper.experiment(
        variant,
        tokenizer="EleutherAI/pythia-31m",
        target=Target(init="EleutherAI/pythia-1.4b", architecture=GPTNeoX(**PYTHIA_1B4)),
        draft=Draft(init="EleutherAI/pythia-31m", architecture=GPTNeoX(**PYTHIA_31M)),
    )
