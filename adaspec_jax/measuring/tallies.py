"""All contenders on the same prompts: what they made is counted once, and timed as often as it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data, reporting
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Context
from adaspec_jax.decoding.engine import checked_exactly
from adaspec_jax.devices import mapped, processes
from adaspec_jax.devices.in_use import bytes_in_use
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.evaluation import check_contexts, prompt_batches
from adaspec_jax.measuring.figures import Tally, part_of, speedup_interval
from adaspec_jax.measuring.placing import rows_on
from adaspec_jax.measuring.programs import Program, decoding_program, prefill_program
from adaspec_jax.measuring.scores import Score
from adaspec_jax.measuring.turns import PLAIN, Contender, same_text, take_turns
from adaspec_jax.methods import Given

MOST_REPETITIONS = 20


class Size(NamedTuple):
    """What all contenders made of the prompts at one batch size, by label."""

    tallies: dict[str, Tally]
    machine: dict[str, dict[str, float]]  # compile_seconds and peak_bytes
    scores: dict[str, float | None]  # the mean over the prompts


@dataclass(frozen=True)
class Terms:
    """On what terms contenders meet."""

    given: Given  # placed on the mesh
    mesh: Mesh
    ends: data.Ends
    decoding: Mapping[str, Any]  # max_new_tokens, sampling, eos_id
    room: int  # tokens that a prompt may have
    seed: int
    until: float | None  # all is timed again until no speed-up's interval is wider
    score: Score | None
    reference: str = PLAIN  # the contender whose text is the right one

    def sizes(
        self, contenders: Mapping[str, Contender], prompts: Sequence[Prompt], batch_sizes: Sequence[int], what: str
    ) -> tuple[dict[int, Size], int]:
        """By batch size, and how many prompts lost their middle."""
        encoded, cut = encoded_prompts(prompts, self.given, self.ends, self.room)
        longest = max(row.prompt_length for row in encoded)
        shown = {"description": what, "unit": "prompt", "memory": bytes_in_use}
        with reporting.track(len(prompts) * len(batch_sizes), **shown) as progress:
            found = {}
            for size in batch_sizes:
                batches = prompt_batches(encoded, size, longest=longest, pad_id=self.ends.closing)
                found[size] = self._of_size(contenders, prompts, batches, progress)
        return found, cut

    def _of_size(self, contenders, prompts: Sequence[Prompt], batches, progress: reporting.Progress) -> Size:
        target = self.given.target
        self._check_exact(contenders, max(batches, key=lambda rows: rows["tokens_BT"].shape[1]))
        decoding = {label: decoding_program(target, each, **self.decoding) for label, each in contenders.items()}
        prefill = {label: prefill_program(target, each, **self.decoding) for label, each in contenders.items()}
        scored: dict[str, list[float]] = {label: [] for label in contenders}
        warm: set = set()
        tallies = self._once(decoding, prefill, batches, warm, progress, prompts, scored)
        while processes.once(partial(self._too_wide, tallies)):  # clocks differ: one process decides
            progress.doing(f"timed again, after {tallies[PLAIN].repetitions} times")
            again = self._once(decoding, prefill, batches, warm)
            tallies = {label: tally.timed_again(again[label]) for label, tally in tallies.items()}
        machine = {
            label: {"compile_seconds": program.compile_seconds, "peak_bytes": program.peak_bytes}
            for label, program in decoding.items()
        }
        means = {label: sum(values) / len(values) if values else None for label, values in scored.items()}
        return Size(tallies, machine, means)

    def _check_exact(self, contenders: Mapping[str, Contender], rows: Mapping[str, Any]) -> None:
        """UserError where exact decoding is not to be had on this machine; all exact contenders have one width."""
        exact = next((each for each in contenders.values() if each.exact is not False), None)
        if exact is not None:
            prompt, new = Context(rows["tokens_BT"], rows["lengths_B"]), self.decoding["max_new_tokens"]
            try:
                how = exact.exact, self.decoding["sampling"], exact.accept
                checked_exactly(self.given.target, exact.drafter, prompt, new, *how)
            except ValueError as error:
                raise UserError(f"{error}; leave --exact out") from None

    def _too_wide(self, tallies: Mapping[str, Tally]) -> bool:
        if self.until is None or tallies[PLAIN].repetitions >= MOST_REPETITIONS:
            return False
        intervals = [speedup_interval(tally, tallies[PLAIN]) for tally in tallies.values()]
        return any(high - low > self.until for low, high in intervals)

    def _once(
        self,
        decoding: Mapping[str, Program],
        prefill: Mapping[str, Program],
        batches,
        warm: set,
        progress: reporting.Progress | None = None,
        prompts: Sequence[Prompt] = (),
        scored: Mapping[str, list[float]] | None = None,
    ) -> dict[str, Tally]:
        """Every contender over all batches, taken in turn; those that learn begin with nothing."""
        ways = {(label, "decode"): program for label, program in decoding.items()}
        ways |= {(label, "prefill"): program for label, program in prefill.items()}
        parts: dict[str, list[dict]] = {label: [] for label in decoding}
        done, place = 0, rows_on(self.mesh)
        for program in decoding.values():
            program.forget()
        doing = {"doing": progress.doing} if progress else {}
        for batch, turns in take_turns(ways, batches, jax.random.key(self.seed), place=place, warm=warm, **doing):
            made_by = {label: program.learn(turns[label, "decode"].made) for label, program in decoding.items()}
            host = {label: processes.fetch(made) for label, made in made_by.items()}
            for label, made in host.items():
                times = turns[label, "decode"].seconds, turns[label, "prefill"].seconds
                parts[label].append(part_of(made, batch, same_text(made, host[self.reference], batch), *times))
                if self.score and scored is not None:
                    scored[label].extend(self._scores(made, batch, prompts[done : done + batch.valid]))
            done += batch.valid
            if progress:
                progress.advance(batch.valid)
            if mapped.nearly_full():
                for program in ways.values():
                    program.unload()
                warm.clear()
                mapped.forget_programs()
        return {label: Tally.of(rows) for label, rows in parts.items()}

    def _scores(self, made, batch, prompts: Sequence[Prompt]) -> list[float]:
        """Of the texts of those of a batch's prompts that say what a good answer is."""
        found = []
        for row, prompt in enumerate(prompts):
            if prompt.answer is not None:
                start, end = int(batch.lengths_B[row]), int(made.lengths_B[row])
                tokens = made.tokens_BS[row, :end].tolist()
                said = data.continuation(tokens[:start], tokens[start:], self.given.tokenizer, special=False)
                found.append(self.score(said, prompt.answer))
        return found


def room_for_prompts(given: Given, max_new_tokens: int, max_prompt_length: int) -> int:
    """Tokens that a prompt may have; `UserError` where the models' contexts leave none."""
    if max_prompt_length < 0:
        raise UserError(f"--max_prompt_length is {max_prompt_length}; give a number of tokens, or 0")
    check_contexts(given, max_new_tokens + 1, "lower --max_new_tokens")
    room = min(model.config.max_positions for model in (given.target, *given.drafts.values())) - max_new_tokens
    return min(room, max_prompt_length) if max_prompt_length else room


def encoded_prompts(
    prompts: Sequence[Prompt], given: Given, ends: data.Ends, room: int
) -> tuple[list[data.Encoded], int]:
    """The prompts in their order, none left out; and how many lost their middle. UserError for one without tokens."""
    if prompts[0].tokens is not None:  # of conversations, which are asked for no longer than there is room
        return [data.Encoded(np.asarray(prompt.tokens, np.int32), len(prompt.tokens)) for prompt in prompts], 0
    examples = [data.Example(prompt.text, "") for prompt in prompts]
    whole = {"max_length": 2**31 - 1, "max_prompt_length": room}
    encoded, counts = data.encode(examples, given.tokenizer, eos_id=ends.closing, ends=ends.ids, **whole)
    if counts["dropped"]:
        raise UserError(f"{counts['dropped']} of the prompts have no tokens")
    return encoded, counts["prompts_cut"]
