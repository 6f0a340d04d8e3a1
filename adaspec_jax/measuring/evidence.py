"""What stands behind a run's acceptance: where guesses are refused, of which class, how sure the draft was of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adaspec_jax import data
from adaspec_jax.decoding import GUESS, Generation
from adaspec_jax.devices import processes
from adaspec_jax.measuring.tokenwise import CHOICES, Tokenwise, tokenwise
from adaspec_jax.measuring.turns import Batch
from adaspec_jax.reporting.evidence import VERSION

READ = 64  # answers along which both models' laws are read; counts are of all
SHOWN = 8  # answers that are kept token by token
LONGEST_SHOWN = 192  # tokens of such an answer
MOST_SHOWN = 4  # drafts whose answers are kept
LONGEST_PIECE = 60  # characters of a token
PROMPT_SHOWN = 1200  # characters of a prompt
POSITIONS = 16  # bins of the places in an answer
BINS = 10  # of a draft's confidence


class Seen(NamedTuple):
    """What one drafter made of a batch."""

    model: Any  # what says its guesses along given text; None where nothing does
    made: Generation  # on the devices
    host: Generation  # the same in NumPy
    seconds: float


class Evidence:
    """Gathers it batch by batch; bounded in memory whatever the number of prompts.

    Args:
      drafts: names, those whose answers are to be kept first.
      greedy: whether a guess is accepted where it is the target's likeliest token.
      fraction: of the tokens with the largest gaps to `against` that selective training takes; None where it does not.
    """

    def __init__(
        self,
        target: Any,
        tokenizer: Any,
        drafts: Sequence[str],
        *,
        rows: int,
        max_new_tokens: int,
        greedy: bool,
        fraction: float | None = None,
        against: str = "reference",
    ) -> None:
        self._target, self._tokenizer, self._against = target, tokenizer, against
        self._classes_V = data.token_classes(tokenizer, rows)
        self._width = -(-max_new_tokens // POSITIONS)
        self._greedy, self._fraction = greedy, fraction
        self._of = {name: _Tally(self._width) for name in drafts}
        self._kept_of = set(list(drafts)[:MOST_SHOWN])
        self._read, self._prompts = 0, []
        self._pieces: dict[str, int] = {}  # texts that answers name by their number
        self._texts: dict[int, str] = {}  # of tokens that one of the models might have written
        self._plain = {"calls": 0, "seconds": 0.0}

    def look(self, batch: Batch, plain: Seen, seen: Mapping[str, Seen]) -> None:
        """Takes a batch in; every process calls it, since what it reads on the devices may lie on all of them."""
        self._plain["calls"] += int(plain.host.rounds_B[: batch.valid].max(initial=0))
        self._plain["seconds"] += plain.seconds
        reads = min(batch.valid, READ - self._read)
        shows = max(min(batch.valid, SHOWN - self._read), 0)
        first, self._read = len(self._prompts), self._read + max(reads, 0)
        tokens_BS = plain.host.tokens_BS
        self._prompts += [self._prompt(tokens_BS[b, : batch.lengths_B[b]].tolist()) for b in range(shows)]
        for name, each in seen.items():
            tally, class_BS = self._of[name], self._classes_V[each.host.tokens_BS]
            tally.count(each, batch, class_BS)
            if each.model is None or reads <= 0:
                continue
            choices = CHOICES if shows and name in self._kept_of else 1
            read = self._along(each.model, each.made, batch, choices)
            gap_BS = None
            if name != self._against and self._against in seen:
                other = seen[self._against].model
                gap_BS = read.kl_BS - self._along(other, each.made, batch, 1).kl_BS
            tally.read(read, gap_BS, each.host, class_BS, reads, self._greedy)
            if name in self._kept_of:
                kept = (self._answer(each.host, read, gap_BS, batch, b, first + b) for b in range(shows))
                tally.answers += kept

    def _along(self, model: Any, made: Generation, batch: Batch, choices: int) -> Tokenwise:
        texts = made.tokens_BS, batch.prompt.lengths_B, made.lengths_B
        return processes.fetch(tokenwise(self._target, model, *texts, choices=choices))

    def _prompt(self, tokens: list[int]) -> str:
        text, half = data.text_of(tokens, self._tokenizer), PROMPT_SHOWN // 2
        return text if len(text) <= PROMPT_SHOWN else f"{text[:half]} … {text[-half:]}"

    def _answer(self, host: Generation, read: Tokenwise, gap_BS, batch: Batch, b: int, prompt: int) -> dict[str, Any]:
        """One answer by columns, a place in each for every token."""
        start, end = int(batch.lengths_B[b]), int(host.lengths_B[b])
        tokens, at = host.tokens_BS[b, :end].tolist(), slice(start, min(end, start + LONGEST_SHOWN))
        texts = list(data.pieces(tokens, self._tokenizer))
        refused = host.rejected_BS[b].tolist()
        named = {"prompt": prompt, "text": [self._piece(text) for text in texts[at]], "tokens": end - start}
        named["accepted"] = (host.origin_BS[b, at] == GUESS).astype(int).tolist()
        before = tokens[start - 1 : start]
        named["refused"] = [-1 if token < 0 else self._choice(before, token) for token in refused[at]]
        named["class"] = self._classes_V[host.tokens_BS[b, at]].tolist()
        for name, figure_BS in (("p", read.p_BS), ("q", read.q_BS), ("kl", read.kl_BS), ("gap", gap_BS)):
            named[name] = None if figure_BS is None else _short(figure_BS[b, at])
        for name, top_BSC, law_BSC in (
            ("target", read.target_top_BSC, read.target_top_p_BSC),
            ("draft", read.draft_top_BSC, read.draft_top_q_BSC),
        ):
            named[name] = [[self._choice(before, token) for token in row] for row in top_BSC[b, at].tolist()]
            named[f"{name}_law"] = [_short(row) for row in law_BSC[b, at]]
        return named

    def _choice(self, before: list[int], token: int) -> int:
        """The place in `pieces` of what a token adds after one other."""
        if token not in self._texts:
            self._texts[token] = data.continuation(before, [token], self._tokenizer)
        return self._piece(self._texts[token])

    def _piece(self, text: str) -> int:
        return self._pieces.setdefault(text[:LONGEST_PIECE], len(self._pieces))

    @property
    def record(self) -> dict[str, Any]:
        """As `reporting.read_evidence` gives it back from a file."""
        return {
            "version": VERSION,
            "classes": list(data.TOKEN_CLASSES),
            "greedy": self._greedy,
            "fraction": self._fraction,
            "against": self._against,
            "positions_in_a_bin": self._width,
            "answers_read": self._read,
            "plain": self._plain,
            "prompts": self._prompts,
            "pieces": list(self._pieces),
            "drafts": {name: tally.record(self._fraction) for name, tally in self._of.items()},
        }


class _Tally:
    """Sums of one drafter's."""

    def __init__(self, width: int) -> None:
        classes = len(data.TOKEN_CLASSES)
        self._width, self._rounds, self._seconds = width, 0, 0.0
        self._position = {name: np.zeros(POSITIONS, np.int64) for name in ("judged", "accepted")}
        self._class = {name: np.zeros(classes, np.int64) for name in ("tokens", "judged", "accepted", "read")}
        self._class |= {name: np.zeros(classes) for name in ("kl", "overlap", "target_entropy", "draft_entropy")}
        self._depth = {"judged": 0, "accepted": 0}
        self._sure = {name: np.zeros(BINS) for name in ("count", "confidence", "hits")}
        self._gaps: list[np.ndarray] = []
        self.answers: list[dict[str, Any]] = []

    def count(self, each: Seen, batch: Batch, class_BS: np.ndarray) -> None:
        host, valid = each.host, batch.valid
        start_B1, end_B1 = batch.lengths_B[:valid, None], host.lengths_B[:valid, None]
        at_1S = np.arange(host.tokens_BS.shape[1])[None]
        new_BS = (at_1S >= start_B1) & (at_1S < end_B1)
        accepted_BS = new_BS & (host.origin_BS[:valid] == GUESS)
        judged_BS = accepted_BS | (new_BS & (host.rejected_BS[:valid] >= 0))
        bin_BS = np.clip((at_1S - start_B1) // self._width, 0, POSITIONS - 1)
        for name, chosen_BS in (("judged", judged_BS), ("accepted", accepted_BS)):
            self._position[name] += np.bincount(bin_BS[chosen_BS], minlength=POSITIONS)
        for name, chosen_BS in (("tokens", new_BS), ("judged", judged_BS), ("accepted", accepted_BS)):
            self._class[name] += np.bincount(class_BS[:valid][chosen_BS], minlength=len(self._class[name]))
        self._depth["judged"] = self._depth["judged"] + host.judged_BN[:valid].sum(0)
        self._depth["accepted"] = self._depth["accepted"] + host.accepted_BN[:valid].sum(0)
        self._rounds += int(host.histogram_BM[:valid].sum(axis=1).max(initial=0))
        self._seconds += each.seconds

    def read(self, read: Tokenwise, gap_BS, host: Generation, class_BS, rows: int, greedy: bool) -> None:
        """Figures of both laws along the first `rows` rows."""
        counted_BS = read.counted_BS[:rows]
        classes_X = class_BS[:rows][counted_BS]
        self._class["read"] += np.bincount(classes_X, minlength=len(self._class["read"]))
        for name in ("kl", "overlap", "target_entropy", "draft_entropy"):
            figure_X = getattr(read, f"{name}_BS")[:rows][counted_BS].astype(np.float64)
            self._class[name] += np.bincount(classes_X, weights=figure_X, minlength=len(self._class[name]))
        guess_BS = (host.origin_BS[:rows] == GUESS) | (host.rejected_BS[:rows] >= 0)
        chosen_BS = counted_BS & guess_BS if greedy else counted_BS
        sure_X = read.draft_top_q_BSC[:rows, :, 0][chosen_BS].astype(np.float64)
        hit_X = (read.draft_top_BSC[:rows, :, 0] == host.tokens_BS[:rows])[chosen_BS]
        bin_X = np.clip((sure_X * BINS).astype(int), 0, BINS - 1)
        for name, weight_X in (("count", np.ones_like(sure_X)), ("confidence", sure_X), ("hits", hit_X)):
            self._sure[name] += np.bincount(bin_X, weights=weight_X, minlength=BINS)
        if gap_BS is not None:
            self._gaps.append(gap_BS[:rows][counted_BS])

    def record(self, fraction: float | None) -> dict[str, Any]:
        threshold = None
        if self._gaps and fraction:
            threshold = float(np.quantile(np.concatenate(self._gaps), 1 - fraction))
        return {
            "calls": self._rounds,
            "seconds": self._seconds,
            "by_position": _lists(self._position),
            "by_depth": _lists(self._depth),
            "by_class": _lists(self._class),
            "calibration": _lists(self._sure) | {"ece": _ece(**self._sure)},
            "selected_from_gap": threshold,
            "answers": self.answers,
        }


def _ece(count: np.ndarray, confidence: np.ndarray, hits: np.ndarray) -> float | None:
    """Expected calibration error (Guo et al. 2017): |share of hits - mean confidence| of each bin, by its count."""
    total = count.sum()
    return float(np.abs(hits - confidence).sum() / total) if total else None


def _lists(sums: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in sums.items()}


def _short(figures) -> list[float]:
    """Four digits are more than a reader sees."""
    return [float(f"{figure:.4g}") for figure in figures]
