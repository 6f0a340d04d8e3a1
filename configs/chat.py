"""A draft for your chat model, from a file of conversations: `messages`, `conversations`, or `input_ids` + `loss_mask`.

    python -m adaspec_jax.train --config configs/chat.py --workdir runs/chat \\
        --config.target.init=DIR_OR_NAME --config.data.train=chat.jsonl

The target is taken as it is. Its own answers take the place of the file's, sampled once, turn by turn: they are what
the draft will be asked to guess (docs/chat.md has what that is worth; `--config.answers.source=dataset` keeps the
file's).
The draft is cut from the target: a quarter of its layers (`--config.draft.layers`), or any model with its tokenizer
(`--config.draft.init`). Two hundred conversations, at most a tenth of the file, are held out and measured on.

Hardware: `python -m adaspec_jax.plan --config configs/chat.py --config.target.init=DIR` says what it needs; this was
run on models of up to a million parameters alone, on two CPU cores.
"""

from adaspec_jax.config import Answers, Data, Draft, Evaluation, Experiment, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'chat has no variants, so not "{variant}" either')
    lengths = (128, 192, 256, 384, 512, 768, 1024)
    fit = {"batch_size": 8, "lr": 3e-4, "schedule": "cosine", "warmup_steps": 20}
    return Experiment(
        data=Data(task="chat", held_out=200, preview=2, max_length=1024, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(architecture=None, epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(epochs=2, **fit),
        draft=Draft(init="cut", architecture=None, epochs=2, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=4, max_new_tokens=128),
        memory="auto",
    )
