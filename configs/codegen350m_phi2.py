"""The paper's second pair: CodeGen-350M-mono drafts for Phi-2 (AdaSPEC, arXiv 2510.19779, main table).

    python -m adaspec_jax.train --config configs/codegen350m_phi2.py:gsm8k --workdir runs/codegen_gsm8k

Variants: gsm8k, alpaca, mbpp, cnn_dailymail, xsum (the paper's optimal epochs), each also as NAME_3epoch. Published
acceptance, DistillSpec -> AdaSPEC, is in `PUBLISHED`. Hardware: one chip with
16 GB distils, and fine-tunes with LoRA; eight fine-tune fully, as planned in docs/plan.md; nothing of it was run.
`python -m adaspec_jax.plan --config configs/codegen350m_phi2.py --topology v5e:1x1` says before a run what fits where;
`memory="auto"` then gives up what it must. Weights and tokenizer come from the hub.

Where the paper and the released scripts differ, the scripts are followed: target learning rate 1e-5, and the draft's
epochs and batch in units of selected tokens (`draft.budget="official"`). Lengths are ours: the scripts have GSM8K only.

The two models share a tokenizer and a vocabulary of 51,200 rows.
"""

from adaspec_jax.config import (
    CodeGen,
    Data,
    Draft,
    Evaluation,
    Experiment,
    Mesh,
    Phi,
    Published,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError, did_you_mean

CODEGEN_350M = {"vocab_size": 51200, "n_embd": 1024, "n_layer": 20, "n_head": 16, "rotary_dim": 32, "n_positions": 2048}
PHI_2 = {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240}
BUCKETS = (128, 256, 384, 512, 768, 1024)
# task: batch size, learning rate of reference and draft, optimal epochs of target, reference and draft, tokens
TASKS = {
    "gsm8k": (16, 3e-4, (3, 30, 30), 512),
    "alpaca": (16, 3e-4, (1, 20, 15), 512),
    "mbpp": (8, 1e-4, (1, 10, 6), 512),
    "cnn_dailymail": (16, 1e-4, (1, 10, 10), 1024),
    "xsum": (16, 1e-4, (1, 10, 10), 1024),
}
# (task, epochs): percent of the paper's main table
PUBLISHED = {
    ("gsm8k", "3epoch"): (79.49, 82.79),
    ("gsm8k", "optimal"): (81.49, 83.48),
    ("alpaca", "3epoch"): (56.48, 58.80),
    ("alpaca", "optimal"): (58.05, 60.36),
    ("mbpp", "3epoch"): (87.36, 88.76),
    ("mbpp", "optimal"): (86.60, 87.70),
    ("cnn_dailymail", "3epoch"): (79.33, 80.63),
    ("cnn_dailymail", "optimal"): (85.01, 86.29),
    ("xsum", "3epoch"): (58.88, 59.93),
    ("xsum", "optimal"): (66.78, 68.19),
}


def get_config(variant: str = "gsm8k") -> Experiment:
    task, three_epochs = variant.removesuffix("_3epoch"), variant.endswith("_3epoch")
    if task not in TASKS:
        known = [name + suffix for name in TASKS for suffix in ("", "_3epoch")]
        raise UserError(f'codegen350m_phi2 has no variant "{variant}"{did_you_mean(variant, known)}')
    batch_size, lr, epochs, length = TASKS[task]
    target, reference, draft = (3, 3, 3) if three_epochs else epochs
    fit = {"batch_size": batch_size, "lr": lr}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task=task, max_length=length, buckets=tuple(b for b in BUCKETS if b <= length)),
        tokenizer=Tokenizer(init="Salesforce/codegen-350M-mono"),
        target=Target(init="microsoft/phi-2", architecture=Phi(**PHI_2), epochs=target, batch_size=batch_size, lr=1e-5),
        reference=Reference(epochs=reference, **fit),
        draft=Draft(
            init="Salesforce/codegen-350M-mono", architecture=CodeGen(**CODEGEN_350M), epochs=draft, fraction=0.4, **fit
        ),
        evaluation=Evaluation(num_prompts=1319, batch_size=16, max_new_tokens=256),
        mesh=Mesh(fsdp=-1, draft="replicated"),
        published=Published(*PUBLISHED[task, "3epoch" if three_epochs else "optimal"]),
    )
