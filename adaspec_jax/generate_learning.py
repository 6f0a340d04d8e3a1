"""What `generate --learn DIR` does beside writing: its options, and a drafter that is another after some requests."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaspec_jax import voice
from adaspec_jax.errors import UserError
from adaspec_jax.options import COUNT, TOKENS, one_of, real
from adaspec_jax.pipeline import holder
from adaspec_jax.pipeline.learned import UNDOS, Learned, is_begun

_KNOBS = {
    "every": "learn_every",
    "rate": "learn_rate",
    "at": "learn_at",
    "longest": "learn_longest",
    "save": "learn_save",
}


def add_learning(parser: argparse.ArgumentParser) -> None:
    """How a draft learns."""
    parser.add_argument(
        "--learn",
        metavar="DIR",
        help="the draft learns between requests, at tokens whose guess was refused, and what it has learnt is kept in "
        "DIR: begun with --draft (a model or a head), gone on with later, --draft or not. The text stays the target's. "
        "The draft as it was given is taken again where over the last 100 requests it would have agreed with the "
        "target more often. DIR is a draft like any other, and holds the tokens of requests not learnt from yet",
    )
    parser.add_argument("--learn_every", type=COUNT, metavar="N", help="requests to a step (default: 8)")
    parser.add_argument(
        "--learn_rate", type=real(0, 1, above=True), metavar="LR", help="learning rate, constant (default: 1e-4)"
    )
    parser.add_argument(
        "--learn_at", **one_of("refused", "answers"), help="tokens: of refused guesses (the default), or of all answers"
    )
    parser.add_argument(
        "--learn_longest", type=TOKENS, metavar="N", help="tokens of a request that are learnt from (default: 1024)"
    )
    parser.add_argument(
        "--learn_save",
        type=COUNT,
        metavar="N",
        help="steps to a version on the disk (default: 1), which has three times the draft's weights; a session that "
        "comes after makes those of no version again",
    )
    parser.add_argument(
        "--undo",
        **one_of(*UNDOS),
        help="of --learn DIR the last version is taken back (3 are kept), or all but the draft as it was given; "
        "nothing is written then",
    )


def check_learning(arguments: argparse.Namespace) -> None:
    """Mistakes that can be told before jax is imported. A directory that was begun stands for the draft it holds."""
    given = [name for name in (*_KNOBS.values(), "undo") if getattr(arguments, name) is not None]
    if arguments.learn is None:
        if given:
            raise UserError(f"--{given[0]} goes with --learn DIR")
        return
    directory = Path(arguments.learn)
    begun = is_begun(directory)
    if arguments.undo:
        if not begun:
            raise UserError(f"--undo: no draft has learnt in {directory}")
        if arguments.prompt or arguments.interactive or arguments.task or arguments.draft:
            raise UserError("--undo takes back what was learnt, and writes nothing; leave prompts and --draft out")
        return
    for option in ("mesh", "qualifier"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--learn teaches one draft on one device; leave --{option} out")
    if len(arguments.draft) > 1:
        raise UserError("--learn teaches one draft; give one --draft")
    if not (begun or arguments.draft):
        raise UserError(f"--learn {directory} begins with a draft: give it as --draft")
    arguments.draft = arguments.draft or [arguments.learn]


def undo(arguments: argparse.Namespace) -> None:
    """Takes back what `--undo` says."""
    directory = Path(arguments.learn)
    with holder.held(directory, voice.say, option="--learn"):
        version = Learned(directory).undo(arguments.undo)
    print(f"{directory} is version {version} again" if version else f"{directory} is the draft as it was given again")


class Guessing:
    """The drafter of the next request; without `--learn`, the same for all of them."""

    def __init__(self, given: Any, method: Any) -> None:
        self.drafter = method.make(given)

    def saw(self, made: Any, new_tokens: int) -> bool:
        """Takes a request in that was answered; whether the drafter is another now."""
        del made, new_tokens
        return False


class _Learning(Guessing):
    def __init__(self, given: Any, method: Any, learning: Any, placed: Callable[[Any], Any]) -> None:
        self._given, self._method, self._learning, self._placed = given, method, learning, placed
        learning.target = given.target
        self._make()

    def _make(self) -> None:
        kind = "heads" if self._given.heads else "drafts"
        [name] = getattr(self._given, kind)
        learnt = self._placed(replace(self._given, **{kind: {name: self._learning.draft}}))
        self._given = replace(learnt, target=self._given.target)
        self.drafter = self._method.make(self._given)

    def saw(self, made: Any, new_tokens: int) -> bool:
        if changed := self._learning.add(made, [int(made.lengths_B[0]) - new_tokens]):
            self._make()
        return changed


@contextlib.contextmanager
def guessing(
    arguments: argparse.Namespace, given: Any, method: Any, placed: Callable[[Any], Any]
) -> Iterator[tuple[Any, Guessing]]:
    """(what is given as decoding reads it, the drafter of each request); `placed` makes it of what is given."""
    if arguments.learn is None:
        given = placed(given)
        yield given, Guessing(given, method)
        return
    from adaspec_jax import models
    from adaspec_jax.pipeline.learning import Learning, Pace

    _check_method(arguments, given, method)
    draft = next(iter(given.heads.values()), None) or given.draft
    source = arguments.draft[0]
    knobs = {name: getattr(arguments, option) for name, option in _KNOBS.items()}
    pace = Pace(**{name: value for name, value in knobs.items() if value is not None})
    how: dict[str, Any] = {"pace": pace, "own": Path(source).absolute() == Path(arguments.learn).absolute()}
    how |= {"tokenizer": given.tokenizer, "fingerprint": models.trained_on(source) if given.heads else None}
    with Learning(arguments.learn, given.target, draft, say=lambda text: voice.say(f"[{text}]"), **how) as learning:
        given = placed(given)
        yield given, _Learning(given, method, learning, placed)


def _check_method(arguments: argparse.Namespace, given: Any, method: Any) -> None:
    """UserError where there is nothing that may be learnt."""
    if given.foreign:
        raise UserError("--learn teaches a draft that has the target's tokenizer")
    if not method.lossless:
        raise UserError(
            f"the method {method.label} is lossy: what a draft learns would change the text; leave --learn out"
        )
    if not method.lacks(replace(given, drafts={}, heads={})):
        raise UserError(
            f"the method {method.label} guesses without a draft, and nothing is to be learnt; leave --learn out"
        )
