"""The rows of AdaSPEC's main table (arXiv 2510.19779): what they have in common, for the config file of each pair.

Where the paper and the released scripts differ, the scripts are followed: target learning rate 1e-5, and the draft's
epochs and batch in units of selected tokens (`draft.budget="official"`). Lengths are ours, since the scripts have GSM8K
alone; so is which rows of Alpaca, which has one split, are held out, and that longer articles lose their middle.
"""

import dataclasses
from dataclasses import dataclass

from adaspec_jax.config import (
    Data,
    Draft,
    Evaluation,
    Experiment,
    Mesh,
    Published,
    Reference,
    Target,
    Tokenizer,
)
from adaspec_jax.errors import UserError, did_you_mean

BUCKETS = (128, 256, 384, 512, 768, 1024)
DATA = {
    "gsm8k": Data(task="gsm8k", max_length=512),
    "alpaca": Data(
        task="alpaca", evaluation_split="train", evaluation_rows="0:1000", train_rows="1000:", max_length=512
    ),
    "mbpp": Data(task="mbpp", max_length=512),
    "cnn_dailymail": Data(task="cnn_dailymail", max_length=1024, max_prompt_length=864),
    "xsum": Data(task="xsum", max_length=1024, max_prompt_length=928),
}
PROMPTS = {"gsm8k": 1319, "mbpp": 500}  # of the test split; elsewhere its first 1,000
SUFFIX = "_3epoch"


@dataclass(frozen=True)
class Row:
    """One task of a pair: batch and learning rate of reference and draft, the paper's best epochs of the three stages,
    and its acceptance in percent, DistillSpec and AdaSPEC, after those epochs and after three of each."""

    batch_size: int
    lr: float
    epochs: tuple[int, int, int]
    published: tuple[float, float]
    published_3epoch: tuple[float, float]


def experiment(
    name: str, variant: str, rows: dict[str, Row], *, tokenizer: str, target: Target, draft: Draft
) -> Experiment:
    """The experiment of `variant`, a task of `rows` or TASK_3epoch; `name` is the config file's, for messages."""
    task = variant.removesuffix(SUFFIX)
    if task not in rows:
        known = [row + suffix for row in rows for suffix in ("", SUFFIX)]
        raise UserError(f'{name} has no variant "{variant}"{did_you_mean(variant, known)}')
    row, three = rows[task], variant.endswith(SUFFIX)
    epochs = (3, 3, 3) if three else row.epochs
    fit = {"batch_size": row.batch_size, "lr": row.lr}
    data = DATA[task]
    return Experiment(
        dtype="bfloat16",
        memory="auto",
        data=dataclasses.replace(data, buckets=tuple(length for length in BUCKETS if length <= data.max_length)),
        tokenizer=Tokenizer(init=tokenizer),
        target=dataclasses.replace(target, epochs=epochs[0], batch_size=row.batch_size, lr=1e-5),
        reference=Reference(epochs=epochs[1], **fit),
        draft=dataclasses.replace(draft, epochs=epochs[2], fraction=0.4, **fit),
        evaluation=Evaluation(num_prompts=PROMPTS.get(task, 1000), batch_size=16, max_new_tokens=256),
        mesh=Mesh(fsdp=-1, draft="replicated"),
        published=Published(*(row.published_3epoch if three else row.published)),
    )
