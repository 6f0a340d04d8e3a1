"""A dense draft for a mixture of experts: Qwen3-0.6B drafts for Qwen3-30B-A3B on GSM8K, three epochs.

    python -m adaspec_jax.train --config configs/qwen3_06b_30b_a3b.py --workdir runs/qwen3_moe_gsm8k

Not a pair of the paper, so that no acceptance is published; nothing of it was run. The target computes about a tenth of
its parameters for a token and has all of them in memory: it is cut over the chips, while draft and reference stay
whole. `python -m adaspec_jax.plan --config configs/qwen3_06b_30b_a3b.py --topology v5e:4x4` says what a slice holds,
and how long a step takes at least; by sizes alone, which for decoding say too little where a target is cut over chips
(see configs/gemma3.py). A batch of guesses chooses more experts than one token does, so that verifying costs
more than plain decoding sooner than it does with a dense target: the plan's break-even counts it.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Mesh, Qwen3, Qwen3Moe, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "gsm8k_3epoch") -> Experiment:
    if variant != "gsm8k_3epoch":
        raise UserError(f'qwen3_06b_30b_a3b has the variant "gsm8k_3epoch", not "{variant}"')
    fit = {"epochs": 3, "batch_size": 16}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="gsm8k", max_length=512),
        tokenizer=Tokenizer(init="Qwen/Qwen3-0.6B"),
        target=Target(init="Qwen/Qwen3-30B-A3B", architecture=Qwen3Moe(), lr=1e-5, **fit),
        reference=Reference(lr=1e-4, **fit),
        draft=Draft(init="Qwen/Qwen3-0.6B", architecture=Qwen3(), lr=1e-4, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=1319, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1, draft="replicated"),
    )
