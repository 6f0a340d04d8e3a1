"""The paper's second pair: CodeGen-350M-mono drafts for Phi-2 (AdaSPEC, arXiv 2510.19779, main table).

    python -m adaspec_jax.train --config configs/codegen350m_phi2.py:gsm8k --workdir runs/codegen_gsm8k

Variants and their published acceptance in percent, DistillSpec -> AdaSPEC, at the paper's optimal epochs, and after
three of each stage (NAME_3epoch):

    gsm8k          81.49 -> 83.48   79.49 -> 82.79
    alpaca         58.05 -> 60.36   56.48 -> 58.80
    mbpp           86.60 -> 87.70   87.36 -> 88.76
    cnn_dailymail  85.01 -> 86.29   79.33 -> 80.63
    xsum           66.78 -> 68.19   58.88 -> 59.93

Hardware: one chip with 16 GB distils, and fine-tunes with LoRA, but does not decode 16 rows at once (lower
evaluation.batch_size); eight fine-tune the whole target and decode; by docs/plan.md, nothing of it was run.
`python -m adaspec_jax.plan --config configs/codegen350m_phi2.py --topology v5e:1x1` says before a run what fits where;
`memory="auto"` then gives up what it must. Weights and tokenizer come from the hub.

The two models share a tokenizer and a vocabulary of 51,200 rows.
What is ours and what the released scripts', says `adaspec_jax.config.paper.experiment`.
"""

from adaspec_jax.config import CodeGen, Draft, Experiment, Phi, Target, paper

CODEGEN_350M = {"vocab_size": 51200, "n_embd": 1024, "n_layer": 20, "n_head": 16, "rotary_dim": 32, "n_positions": 2048}
PHI_2 = {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240}


def get_config(variant: str = "gsm8k") -> Experiment:
    return paper.experiment(
        variant,
        tokenizer="Salesforce/codegen-350M-mono",
        target=Target(init="microsoft/phi-2", architecture=Phi(**PHI_2)),
        draft=Draft(init="Salesforce/codegen-350M-mono", architecture=CodeGen(**CODEGEN_350M)),
    )
