"""How much longer a run will take: what its stages compute, at the speed of those that have run."""

from __future__ import annotations

from collections.abc import Mapping

from adaspec_jax.config import MODEL, QUALIFIER, Evaluation
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import STAGES

_STEP = 3  # forward passes that a step costs
_FEWEST = 100  # tokens that a call costs at least, however few it reads: the weights are read in any case [ours]
_KEPT, _GUESSES = 0.6, 5  # of the guesses of a round, and how many there are, before anything is known
_PROGRAMS = 3  # as long to compile as a stage's step: plain decoding, a round, and what measures their parts
_KNOWN_AFTER = 2.0  # seconds of steps


class Forecast:
    """Seconds that are left of a run, said by the stage under way.

    Operations are counted from numbers of parameters and tokens: two for a parameter and a token that is read, three
    times that where a step is taken. All that has run in this session says how many there are in a second; every
    program that is still to be compiled counts as long as those of the stage under way.
    """

    def __init__(self, stages: Mapping[str, float], measuring: float) -> None:
        """`stages`: operations of each that is still to run, in their order; `measuring`: of all that follows them."""
        self._stages, self._measuring = dict(stages), measuring
        self._done = self._took = 0.0

    def after(self, label: str, share: float, seconds: float, compile_seconds: float) -> float | None:
        """Seconds of all that comes after a stage of which this share took so many; None while that is too little."""
        if seconds < _KNOWN_AFTER or label not in self._stages:
            return None
        left = list(self._stages)[list(self._stages).index(label) + 1 :]
        operations = sum(self._stages[each] for each in left) + self._measuring
        speed = (self._done + share * self._stages[label]) / (self._took + seconds)
        return operations / speed + compile_seconds * (len(left) + _PROGRAMS)

    def finished(self, label: str, share: float, seconds: float) -> None:
        """The stage's last word on its speed."""
        if label in self._stages and seconds >= _KNOWN_AFTER:
            self._done, self._took = self._done + share * self._stages[label], self._took + seconds


def forecast(
    todo: Mapping[str, StageSpec],
    text: Text,
    sizes: Mapping[str, int | None],
    evaluation: Evaluation,
    *,
    drafts: int,
    answers: str,
    teacher: str,
) -> Forecast | None:
    """None where it cannot be told beforehand: answers that are sampled, heads, models whose size is not known yet.

    `todo`: the stages that are to run, by label. `sizes`: parameters of "target", "draft" and "qualifier". `drafts`:
    how many are measured. `answers`, `teacher`: where they come from, as the config says.
    """
    target, draft = sizes["target"], sizes["draft"]
    known = all(stage.kind == MODEL and sizes[_whose(stage)] for stage in todo.values())
    if answers != "dataset" or not known or target is None or draft is None:
        return None
    whole = sum(len(row.tokens) for row in text.rows)
    operations: dict[str, float] = {}
    for stage in _in_order(todo):
        read = stage.steps * stage.batch_size * whole / len(text.rows)  # tokens
        distils, stored = stage.name != "target", teacher != "recompute"
        if distils and stored and "target" in operations:
            operations.setdefault("what the target says", 2.0 * whole * target)
        operations[stage.label] = 2.0 * read * _STEP * (sizes[_whose(stage)] or 0)
        if distils and not stored:
            operations[stage.label] += 2.0 * read * (target + (draft if stage.name == "draft" else 0))
        if stage.name == "reference" and stored:
            operations["what the reference says"] = 2.0 * whole * draft
    return Forecast(operations, _measuring(text, target, draft, evaluation, drafts))


def _in_order(todo: Mapping[str, StageSpec]) -> list[StageSpec]:
    labels = ["target", "reference", *(label for label in todo if label not in STAGES), "draft"]
    return [todo[label] for label in labels if label in todo]


def _whose(stage: StageSpec) -> str:
    return stage.name if stage.name in ("target", QUALIFIER) else "draft"


def _measuring(text: Text, target: int, draft: int, evaluation: Evaluation, drafts: int) -> float:
    """Operations of decoding all prompts plainly and with each draft, as long answers as the rows have on average."""
    rows, length = text.rows, evaluation.draft_length or _GUESSES
    prompts = min(evaluation.num_prompts, len(text.held_out))
    tokens = min(sum(row.num_labels for row in rows) / len(rows), evaluation.max_new_tokens)
    batch = min(evaluation.batch_size, prompts)

    def call(parameters: int, width: int) -> float:
        return 2.0 * parameters * max(batch * width, _FEWEST)

    rounds = tokens / (1 + _KEPT * length)
    of_drafts = drafts * rounds * (length * call(draft, 1) + call(target, length + 1))
    return -(-prompts // max(batch, 1)) * (tokens * call(target, 1) + of_drafts)
