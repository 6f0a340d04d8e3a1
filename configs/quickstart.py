"""The whole method in minutes on a laptop: generated word problems, models trained from scratch, no network.

    bash launch/quickstart.sh

Hardware: 2 CPU cores. See the README for what it printed.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer


def get_config(variant: str = "") -> Experiment:
    del variant
    sizes = {"vocab_size": 512, "max_position_embeddings": 512}
    target = GPTNeoX(hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=768, **sizes)
    draft = GPTNeoX(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=192, **sizes)
    return Experiment(
        data=Data(task="word_problems", num_train=4000, num_evaluation=200, max_length=256, buckets=(128, 160, 192, 256)),
        tokenizer=Tokenizer(init="train", vocab_size=512),
        target=Target(architecture=target, epochs=4, batch_size=16, lr=2e-3, schedule="cosine", warmup_steps=50),
        reference=Reference(epochs=3, batch_size=16, lr=3e-3),
        draft=Draft(architecture=draft, epochs=3, batch_size=16, lr=3e-3, fraction=0.4),
        evaluation=Evaluation(num_prompts=200, batch_size=8, max_new_tokens=160),
    )
