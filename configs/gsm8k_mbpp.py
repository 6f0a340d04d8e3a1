"""The paper's mixture: one draft trained on GSM8K and MBPP together (AdaSPEC, arXiv 2510.19779).

    python -m adaspec_jax.train --config configs/gsm8k_mbpp.py --workdir runs/gsm8k_mbpp

CodeGen-350M drafts for Phi-2, with what the paper's GSM8K row has beside the data. Each of MBPP's 374 training programs
comes five times where a GSM8K problem comes once [ours: the paper gives no shares]; prompts of both are measured, in
turn. `:small` trains small models from scratch on the same mixture, on two CPU cores. Any sources can be mixed so:
`--config.data.mixture="('chat.jsonl','hf:NAME:SPLIT*0.5')"` with `data.task="chat"`.

Hardware and weights: as configs/codegen350m_phi2.py; the large pair was not run.
"""

import dataclasses

from adaspec_jax.config import (
    CodeGen,
    Data,
    Draft,
    Evaluation,
    Experiment,
    GPTNeoX,
    Phi,
    Reference,
    Target,
    Tokenizer,
    paper,
)
from adaspec_jax.errors import UserError

MIXTURE = ("gsm8k", "mbpp*5")
CODEGEN_350M = {"vocab_size": 51200, "n_embd": 1024, "n_layer": 20, "n_head": 16, "rotary_dim": 32, "n_positions": 2048}
PHI_2 = {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240}


def get_config(variant: str = "") -> Experiment:
    if variant not in ("", "small"):
        raise UserError(f'gsm8k_mbpp has the variant "small", not "{variant}"')
    if variant:
        return _small()
    config = paper.experiment(
        "gsm8k",
        tokenizer="Salesforce/codegen-350M-mono",
        target=Target(init="microsoft/phi-2", architecture=Phi(**PHI_2)),
        draft=Draft(init="Salesforce/codegen-350M-mono", architecture=CodeGen(**CODEGEN_350M)),
    )
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, mixture=MIXTURE), published=type(config.published)()
    )


def _small() -> Experiment:
    sizes = {"vocab_size": 2048, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"batch_size": 16, "schedule": "cosine", "warmup_steps": 10}
    lengths = {"max_length": 320, "max_prompt_length": 192, "buckets": (128, 192, 256, 320), "length_window": 16}
    return Experiment(
        data=Data(mixture=MIXTURE, train_rows="0:2400", **lengths),
        tokenizer=Tokenizer(init="train", vocab_size=2048),
        target=Target(architecture=target, epochs=2, lr=3e-3, **fit),
        reference=Reference(epochs=1, lr=3e-3, **fit),
        draft=Draft(architecture=draft, epochs=1, lr=3e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=64),
    )
