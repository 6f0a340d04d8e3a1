"""A draft that learns while it is decoded with: online distillation (OSD, arXiv 2310.07177), between requests.

Every few requests one step brings the draft's law nearer to the target's at the tokens of those answers where a guess
was refused: those that really were while decoding, as `Generation.rejected_BS` has them, whatever rule or tree judged
them. (The offline selection "rejected" asks instead what greedy decoding would refuse now; the two differ by tokens
that nobody had guessed, after a full acceptance.) The draft never changes inside a request, and a lossless rule makes
the text the target's with any draft: what is learnt decides how many target calls the text takes, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from adaspec_jax import models
from adaspec_jax.decoding import Generation
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.models.files.safetensors import write_tensors
from adaspec_jax.models.heads import Head
from adaspec_jax.pipeline import holder
from adaspec_jax.pipeline.answered import Request, batch_of
from adaspec_jax.pipeline.learned import OPTIMIZER, Learned, begin, is_begun
from adaspec_jax.pipeline.online_step import Pace, programs_of
from adaspec_jax.training import Frozen, State, init_state
from adaspec_jax.training.checkpoints import checksums

__all__ = ["Learning", "Pace"]


class Learning:
    """A draft model, or a head on the target's features, that learns in a directory; see `learned` for that.

        with Learning("runs/learned", target, draft) as learning:
            for prompt in prompts:
                made = generate(target, ChainDrafter(learning.draft, length=5), prompt, key, ...)
                learning.add(made, prompt.lengths_B)

    A directory that was begun goes on from there, to the bit, whatever killed the process before; UserError where it is
    another target's, or of another draft. Another process cannot learn there meanwhile.

    Attributes:
      draft: as it is now, in the type of the draft that was given; of the same shapes for ever, so that no program is
        compiled again.
      version: how many times it has changed; 0: as it was given.
      requests: that have been added.
      target: whose law is taught; may be set to the same one laid out otherwise.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        target: models.CausalLM,
        draft: models.CausalLM | Head,
        *,
        own: bool = False,
        tokenizer: Any = None,
        fingerprint: str | None = None,
        pace: Pace = Pace(),  # noqa: B008 (frozen)
        say: Callable[[str], None] = processes.say,
    ) -> None:
        """`draft`: the one that the directory is begun with, or was; or any version of its `own`.

        `tokenizer`, `fingerprint`: written beside a draft model, or as the sum of a head's target (`save_head`).
        """
        self._like, self.pace, self._say, directory = draft, pace, say, Path(directory)
        self.target = target
        about = {"target": _sum_of(target), "draft": _sum_of(draft)}
        self._programs = programs_of(isinstance(draft, Head), pace, draft.dtype)
        self._save = _saving(fingerprint)
        if not is_begun(directory):
            state = self._begun(draft)
            whole = _saving(fingerprint, tokenizer)
            begin(directory, about, draft=lambda folder: whole(state.model, folder), given=self._written(state))
        self._open = contextlib.ExitStack()
        self._open.enter_context(holder.held(directory, say, option="--learn"))
        try:
            self._learned = Learned(directory)
            self._check(about, own)
            self._restore()
            self._catch_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Learning:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def target(self) -> models.CausalLM:
        return self._target

    @target.setter
    def target(self, target: models.CausalLM) -> None:
        """Taught is its law over the tokens that the draft guesses among: over other rows no draft could learn it."""
        tokens = (self._like.config.sizes if isinstance(self._like, Head) else self._like.config).num_tokens
        self._target = target.with_vocabulary(min(tokens, target.config.num_tokens))

    def close(self) -> None:
        """Another process may learn there from now on."""
        self._open.close()

    def add(self, made: Generation, starts_B: Any) -> bool:
        """Takes in answered requests, a row each, of which so many tokens were the prompt; whether the draft changed.

        Each is on the disk when this returns.
        """
        made, starts_B = jax.device_get((made, starts_B))
        before = self.version
        for row, start in enumerate(np.asarray(starts_B).tolist()):
            self.requests += 1
            request = Request.of(self.requests, made, row, start, self.pace.longest)
            self._journal.add(request._asdict())
            self._waiting.append(request)
        self._catch_up()
        return self.version > before

    def _catch_up(self) -> None:
        """Steps, while there are requests for one."""
        try:
            while len(self._waiting) >= self.pace.every:
                self._learn(self._waiting[: self.pace.every])
        except BaseException:  # a step has given away what it began with
            self._restore()
            raise

    def _begun(self, draft: Any) -> State:
        """The state before the first step on a draft."""
        return init_state(draft, self._programs.optimizer, jax.random.key(0))

    def _check(self, about: dict[str, Any], own: bool) -> None:
        """UserError where the directory is of another pair."""
        there, where = self._learned.about, f"{self._learned.directory} is what a draft has learnt"
        if there["target"] != about["target"]:
            raise UserError(
                f"{where} from another target: weights {there['target']} there and {about['target']} here; give that "
                "one, in the --dtype it had, or name a new directory"
            )
        if not own and there["draft"] != about["draft"]:
            raise UserError(
                f"{where} that was begun with another: weights {there['draft']} there and {about['draft']} here; leave "
                "--draft out to go on with it, or name a new directory"
            )

    def _restore(self) -> None:
        """The newest version, and the requests after it."""
        (self.version, kept), self._unsaved = self._learned.newest(self._say), 0
        newest = self._loaded(self.version)
        self._given = _in(self._like.dtype, newest if self.version == 0 else self._loaded(0))
        self._state, self._compared = self._restored(newest, kept["steps"]), kept["compared"]
        self.draft = _in(self._like.dtype, self._state.model)
        self._journal = self._learned.requests()
        rows = [Request(**row) for row in self._journal.rows]
        self._waiting = [row for row in rows if row.number > kept["requests"]]
        self.requests = kept["requests"] + len(self._waiting)

    def _loaded(self, version: int) -> Any:
        """The draft of a version, float32, with what the given one's config says beside its files."""
        place = self._learned.place_of(version)
        loaded: Any = models.load_head(place, self.target) if isinstance(self._like, Head) else models.load(place)
        return replace(self._like, params=loaded.params)

    def _restored(self, model: Any, steps: int) -> State:
        state = self._begun(model)
        stored = load_file(self._learned.place_of(self.version) / OPTIMIZER)
        leaves, structure = jax.tree.flatten(state.opt_state)
        moments = [jnp.asarray(stored[str(n)], leaf.dtype) for n, leaf in enumerate(leaves)]
        opt_state = jax.tree.unflatten(structure, moments)
        return replace(state, opt_state=opt_state, step=jnp.asarray(steps, jnp.int32))

    def _learn(self, requests: Sequence[Request]) -> None:
        """One step on the first requests that wait, and a new version."""
        batch, answers_BT = batch_of(requests, self.pace.at)
        tokens, last = int(np.sum(batch.loss_mask_BT)), requests[-1].number
        batch, agreeing = self._programs.compare(self.target, self.draft, self._given, batch, answers_BT)
        agreed = {name: float(value) for name, value in agreeing.items()}
        self._compared.append({"requests": len(requests), "labels": int(answers_BT.sum()), **agreed})
        self._compared = self._compared[-max(-(-self.pace.compared // self.pace.every), 1) :]
        said = f"after {last} requests: "
        if self._is_worse():
            self._state, self._compared = self._begun(self._given), []
            said += "the draft as it was given agrees with the target more often, and is taken again"
        elif tokens:
            self._state, metrics = self._programs.step(self._state, Frozen(self.target), batch)
            loss = float(metrics["loss"])
            said += f"a step on {tokens} tokens, loss {loss:.3f}"
            said += "" if np.isfinite(loss) else ", which teaches nothing"
        else:
            said += "no guess was refused in the last ones"
        state = {"requests": last, "steps": int(self._state.step), "compared": self._compared}
        rest = [request for request in self._waiting if request.number > last]
        version, self._unsaved = self.version + 1, self._unsaved + 1
        if self._unsaved >= self.pace.save:
            self._learned.add(version, state, self._written(self._state), keep=self.pace.keep, rest=bool(rest))
            self._journal, self._unsaved = self._learned.requests(), 0
        self._waiting = rest
        self.version, self.draft = version, _in(self._like.dtype, self._state.model)
        self._say(f"{said}: version {self.version} of the draft")

    def _is_worse(self) -> bool:
        """Whether the given draft would have agreed with the target at more tokens of the last answers.

        Each answer was compared before anything was learnt of it.
        """
        if sum(each["requests"] for each in self._compared) < self.pace.compared:
            return False
        return sum(each["labels"] * (each["now"] - each["given"]) for each in self._compared) < 0

    def _written(self, state: State) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            self._save(state.model, folder)
            leaves = jax.device_get(jax.tree.leaves(state.opt_state))
            write_tensors(folder / OPTIMIZER, {str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)})

        return write


def _saving(fingerprint: str | None, tokenizer: Any = None) -> Callable[[Any, Path], None]:
    """Writes a draft as the directory that its kind has."""

    def save(draft: Any, folder: Path) -> None:
        if isinstance(draft, Head):
            models.save_head(draft, folder, fingerprint=fingerprint)
        else:
            models.save(draft, folder, tokenizer=tokenizer)

    return save


def _in(dtype: Any, draft: Any) -> Any:
    """The draft in this type, its arrays its own: a step gives away those that it begins with."""
    return replace(draft, params=jax.tree.map(lambda leaf: jnp.array(leaf, dtype), draft.params))


def _sum_of(model: Any) -> str:
    """Of a model's weights as float32 numbers, in hex."""
    sums = [checksums(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(model.params)]
    return hashlib.sha256(np.concatenate(sums).tobytes()).hexdigest()[:12]
