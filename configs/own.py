"""A draft for your model, from your file of prompts and answers, or of plain texts.

    python -m adaspec_jax.train --config configs/own.py --workdir runs/own --config.target.init=DIR_OR_NAME \\
        --config.data.train=mine.jsonl --config.data.prompt_column=question --config.data.answer_column=answer

or `--config.data.text_column=text`: each text's first sentences are then the prompt. Columns are taken as they are, so
put a separator at the end of the prompt. Without `--config.data.evaluation=FILE` two hundred rows, at most a tenth of
the file, are held out and measured on. The target's own answers take the place of the file's
(`--config.answers.source=dataset` keeps those), and the draft is cut from the target, a quarter of its layers; both are
keys, as in configs/chat.py, which is this for conversations.

Hardware: as configs/chat.py.
"""

from adaspec_jax.config import Answers, Data, Draft, Evaluation, Experiment, Reference, Target, Tokenizer
from adaspec_jax.errors import UserError


def get_config(variant: str = "") -> Experiment:
    if variant:
        raise UserError(f'own has no variants, so not "{variant}" either')
    lengths = (64, 128, 192, 256, 384, 512)
    fit = {"batch_size": 8, "lr": 3e-4, "schedule": "cosine", "warmup_steps": 20}
    return Experiment(
        data=Data(task="columns", held_out=200, preview=2, max_length=512, buckets=lengths, length_window=16),
        tokenizer=Tokenizer(init="target"),
        target=Target(architecture=None, epochs=0),
        answers=Answers(source="target", temperature=1.0, max_new_tokens=256),
        reference=Reference(epochs=2, **fit),
        draft=Draft(init="cut", architecture=None, epochs=2, fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=200, batch_size=4, max_new_tokens=128),
        memory="auto",
    )
