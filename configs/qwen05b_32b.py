"""The paper's large pair: Qwen2.5-0.5B drafts for Qwen2.5-32B on GSM8K, three epochs (AdaSPEC, arXiv 2510.19779).

    python -m adaspec_jax.train --config configs/qwen05b_32b.py --workdir runs/qwen_gsm8k

Published acceptance, DistillSpec -> AdaSPEC: 84.43 -> 86.21 %. Hardware: see docs/plan.md; the target is cut over the
chips while draft and reference stay whole; nothing of it was run. The stock draft has 151,936 vocabulary rows and its
target 152,064: here it gets the target's, as it must to be verified.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Mesh, Published, Qwen2, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError

QWEN_05B = {
    **{"vocab_size": 152064, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14},
    **{"num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True, "rope_theta": 1e6},
}
QWEN_32B = {
    **{"vocab_size": 152064, "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40},
    **{"num_key_value_heads": 8, "intermediate_size": 27648, "tie_word_embeddings": False, "rope_theta": 1e6},
    "rms_norm_eps": 1e-5,
}


def get_config(variant: str = "gsm8k_3epoch") -> Experiment:
    if variant != "gsm8k_3epoch":
        raise UserError(f'qwen05b_32b has the variant "gsm8k_3epoch", not "{variant}"')
    fit = {"epochs": 3, "batch_size": 16}
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=Data(task="gsm8k", max_length=512),
        tokenizer=Tokenizer(init="Qwen/Qwen2.5-0.5B"),
        target=Target(init="Qwen/Qwen2.5-32B", architecture=Qwen2(**QWEN_32B), lr=1e-5, **fit),
        reference=Reference(lr=1e-4, **fit),
        draft=Draft(init="Qwen/Qwen2.5-0.5B", architecture=Qwen2(**QWEN_05B), lr=1e-4, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=1319, batch_size=16, max_new_tokens=256),
        mesh=Mesh(data=1, fsdp=-1, draft="replicated"),
        published=Published(84.43, 86.21),
    )
