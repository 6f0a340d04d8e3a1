"""Conversations in minutes on a laptop: generated, of one to three turns, models trained from scratch, no network.

    python -m adaspec_jax.train --config configs/chat_small.py --workdir runs/chat_small

The tokenizer gets the marks of ChatML. Reference and draft learn the target's own answers, sampled turn by turn;
`:dataset` keeps the generated ones, for comparison: same prompts, as many steps. Hardware: 2 CPU cores.
"""

from adaspec_jax.config import Answers, Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant not in ("", "dataset"):
        raise UserError(f'chat_small has the variant "dataset", not "{variant}"')
    sizes = {"vocab_size": 1024, "max_position_embeddings": 1024}
    target = GPTNeoX(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512, **sizes)
    draft = GPTNeoX(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, **sizes)
    fit = {"schedule": "cosine", "warmup_steps": 20}
    lengths = (176, 352, 576)
    return Experiment(
        data=Data(
            task="word_problem_chats", num_train=1200, preview=1, max_length=576, buckets=lengths, length_window=16
        ),
        tokenizer=Tokenizer(init="train", vocab_size=1024),
        target=Target(architecture=target, epochs=2, batch_size=16, lr=3e-3, **fit),
        answers=Answers(source=variant or "target", temperature=1.0, max_new_tokens=128),
        reference=Reference(epochs=1, batch_size=8, lr=3e-3, **fit),
        draft=Draft(architecture=draft, epochs=1, batch_size=8, lr=3e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=8, max_new_tokens=128),
    )
