"""A draft for a real pretrained Llama: 260,032 parameters that write short stories (karpathy/tinyllamas).

    python -m adaspec_jax.train --config configs/stories.py --workdir runs/stories

Target: `ADASPEC_WEIGHTS/stories260K-hf`, used as it is, with its tokenizer: llama2.c's stories260K.bin as a directory
of Hugging Face files, which llama2.c's export.py writes. Data: TinyStories from `ADASPEC_DATA/tinystories`, else the
hub; a story's first sentences are the prompt. Hardware: two CPU cores, minutes. The report is in
`benchmarks/results/stories.json`; `python -m adaspec_jax.parity --workdir runs/stories` makes its parity certificate.
"""

from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Llama, Llama3Rope, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError

SIZES = {"vocab_size": 512, "max_position_embeddings": 512, "rope_theta": 1e4}


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'stories has no variants, so not "{variant}" either')
    target = Llama(
        hidden_size=64,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=172,
        rope_scaling=Llama3Rope(rope_type="default"),
        **SIZES,
    )
    draft = Llama(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=88,
        rope_scaling=Llama3Rope(rope_type="default"),
        **SIZES,
    )
    fit = {"batch_size": 16, "schedule": "cosine", "warmup_steps": 20}
    return Experiment(
        data=Data(
            task="tinystories",
            train_rows="0:900",
            evaluation_split="train",
            evaluation_rows="900:1000",
            max_length=512,
            buckets=(256, 384, 512),
            length_window=16,
        ),
        tokenizer=Tokenizer(init="stories260K-hf"),
        target=Target(init="stories260K-hf", architecture=target, epochs=0),
        reference=Reference(epochs=10, lr=5e-3, equal_data=True, **fit),
        draft=Draft(architecture=draft, epochs=10, lr=5e-3, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=100, batch_size=8, max_new_tokens=96),
    )
