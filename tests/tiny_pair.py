"""A random target and draft of one tokenizer, as Hugging Face directories, and the workdir of a run that made them."""

import json

import jax

from adaspec_jax import data, models

GPT_NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "eos_token_id": 0,
}
LLAMA = GPT_NEOX | {"model_type": "llama", "num_key_value_heads": 2, "tie_word_embeddings": True}
TOKENS = 270
TEXTS = [f"Tom has {n} apples and eats {n // 2} of them." for n in range(40)]


def tokenizer(texts=TEXTS):
    made = data.train_bpe(texts, vocab_size=TOKENS)
    assert data.rows_needed(made) == TOKENS
    return made


def save(directory, hf, *, with_tokenizer=True, seed=0):
    """The random model of these config.json keys that was saved there."""
    model = models.build(hf, jax.random.key(seed))
    models.save(model, directory, tokenizer=tokenizer() if with_tokenizer else None)
    return model


def save_run(directory, *, target, draft, settings=None):
    """A workdir with these two models as its finished stages."""
    for name, hf in (("target", target), ("draft", draft)):
        save(directory / name, hf, seed=len(name))
        (directory / name / "stage.json").write_text('{"steps": 1}')
    tokenizer().save_pretrained(directory / "tokenizer")
    (directory / "config.json").write_text(json.dumps(settings or {}))
    return directory
