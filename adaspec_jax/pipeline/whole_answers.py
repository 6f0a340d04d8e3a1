"""Speculative RAG: a draft model writes whole answers, each from a few of the passages, and the target chooses one.

Wang et al. 2024 (arXiv 2407.08223), outside the token loop and not lossless. Its abstract has the form (drafts in
parallel, one verification pass, confidence from the probabilities of answer and rationale); which three factors a draft
is judged by, and the numbers of drafts and passages, are from notes on the paper. Theirs is a drafter that was
fine-tuned for this; here any draft model is told what to do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adaspec_jax import data, retrieval
from adaspec_jax.data.questions import Question
from adaspec_jax.decoding import Context, Logprobs, NoDraft, Sampling
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.evaluation import prompt_batches
from adaspec_jax.measuring.programs import Program, decoding_program
from adaspec_jax.measuring.scores import holds_an_answer
from adaspec_jax.measuring.teacher_forced import given_logprobs
from adaspec_jax.measuring.turns import Contender
from adaspec_jax.methods import Given
from adaspec_jax.pipeline.rag_prompts import AsChat, AsText, Judging
from adaspec_jax.reporting.statistics import interval

DRAFTS, PER_DRAFT = 5, 2  # of a question, and passages of each: from notes on the paper
FACTORS = ("draft", "consistency", "reflection")

Retriever = Callable[[str, int], Sequence[str]]  # (question, most) -> passages, the best first


class Found(NamedTuple):
    """A question, its passages, and which of them each draft is written from."""

    question: Question
    passages: tuple[str, ...]
    subsets: tuple[tuple[int, ...], ...]


def find(
    question: Question, retriever: Retriever | None, *, most: int, drafts: int, per_draft: int, seed: int = 0
) -> Found:
    """At most `most` passages, those of the question's own row without a retriever, and at most `drafts` subsets.

    A subset has one passage from each of `per_draft` clusters, and no two are the same, so that there may be fewer than
    `drafts`. UserError where there are fewer passages than clusters.
    """
    given = question.passages if retriever is None else retriever(question.text, most)
    passages = tuple(dict.fromkeys(given))[:most]
    if len(passages) < per_draft:
        some = f"{len(passages)} passage{'' if len(passages) == 1 else 's'}"
        mend = "give a corpus" if retriever is None else "ask for what the corpus tells"
        raise UserError(
            f'{question.where or question.id}: {some} for "{question.text[:80]}", and a draft takes one from each of '
            f"{per_draft} clusters; {mend}, or lower per_draft"
        )
    groups = retrieval.clusters(passages, per_draft, seed=seed)
    return Found(question, passages, tuple(retrieval.subsets(groups, drafts, seed=seed)))


class SpeculativeRAG:
    """Answers to questions, by a draft and a target of one tokenizer.

        rag = SpeculativeRAG(given, ends, AsText(Prompts(), given.tokenizer))
        row = rag.answered(find(question, BM25(passages), most=10, drafts=5, per_draft=2))

    A draft's score is the product of `factors`, each exp(mean log-probability of its tokens), which is ours (the paper
    multiplies probabilities of whole texts, by notes on it): `draft`, of what the drafter wrote after its passages, by
    the drafter; `consistency`, of the same after the question alone, by the target; `reflection`, of "Yes" when the
    target is then asked whether the rationale supports the answer. The last two are of one pass. A draft without a word
    has 0. All is greedy.
    """

    def __init__(
        self,
        given: Given,
        ends: data.Ends,
        wording: AsText | AsChat,
        *,
        drafts: int = DRAFTS,
        max_new_tokens: int = 128,
        factors: Sequence[str] = FACTORS,
        place: Callable[[Any], Any] = lambda rows: rows,
    ) -> None:
        """The models of `given` are placed where `place` puts rows. ValueError for a factor that is none."""
        if not factors or set(factors) - set(FACTORS):
            raise ValueError(f"factors must be some of {', '.join(FACTORS)}, not {', '.join(factors) or 'none'}")
        self._given, self._ends, self._wording = given, ends, wording
        self._drafts, self._new, self._factors, self._place = drafts, max_new_tokens, tuple(factors), place
        knobs = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature=0.0), "eos_id": ends}
        self._write = decoding_program(given.draft, Contender(NoDraft()), logprobs=Logprobs(), **knobs)
        self._read = Program(lambda target, rows, key: given_logprobs(target, rows.tokens_BS), given.target)
        self._answer = decoding_program(given.target, Contender(NoDraft()), **knobs)

    @property
    def compile_seconds(self) -> float:
        """Which no row's seconds hold."""
        return sum(program.compile_seconds for program in (self._write, self._read, self._answer))

    def check(self, found: Found) -> None:
        """UserError where a model has no room for this question."""
        wording, where = self._wording, found.question.where or found.question.id
        remedy = "lower the number of passages or max_new_tokens"
        of_drafts, around = self._prompts(found), sum(map(len, wording.judging(found.question.text)))
        of_target = max(around, len(wording.plain(found.question.text, found.passages)))
        self._given.draft.check_context(max(map(len, of_drafts)) + self._new, f"{where}: the draft", remedy)
        self._given.target.check_context(of_target + self._new, f"{where}: the target", remedy)

    def answered(self, found: Found) -> dict[str, Any]:
        """The report's row: subsets, drafts with their factors, the choice, and plain RAG by the target alone."""
        drafts, drafting = self._written(found)
        scoring = self._judged(found.question, drafts)
        for each in drafts:
            each["score"] = math.prod(each["factors"][name] for name in self._factors)
        chosen = max(range(len(drafts)), key=lambda number: drafts[number]["score"])
        question, shown = found.question, [each | {"tokens": len(each["tokens"])} for each in drafts]
        plain = self._plain(found)
        return {
            "id": question.id,
            "question": question.text,
            "passages": list(found.passages),
            "answers": list(question.answers),
            "drafts": shown,
            "chosen": chosen,
            "answer": drafts[chosen]["answer"],
            "score": _score(drafts[chosen]["answer"], question),
            "seconds": {"drafting": drafting, "scoring": scoring},
            "plain": plain | {"score": _score(plain["answer"], question)},
        }

    def _prompts(self, found: Found) -> list[list[int]]:
        read = [[found.passages[number] for number in subset] for subset in found.subsets]
        return [self._wording.draft(found.question.text, passages) for passages in read]

    def _written(self, found: Found) -> tuple[list[dict[str, Any]], float]:
        """What the drafter writes from each subset, in one batch; and its seconds."""
        prompts = self._prompts(found)
        made, seconds = self._timed(self._write, prompts, self._drafts, self._given.draft, self._new)
        drafts = []
        for row, (prompt, subset) in enumerate(zip(prompts, found.subsets, strict=True)):
            tokens = self._words(made, row, len(prompt))
            said = data.continuation(prompt, tokens, self._wording.tokenizer, special=False)
            answer, rationale = self._wording.prompts.parts(said)
            end = len(prompt) + len(tokens)
            by_drafter = likelihood(made.logprobs.chosen_BS[row, len(prompt) : end])
            parts = {"passages": list(subset), "answer": answer, "rationale": rationale, "tokens": tokens}
            drafts.append(parts | {"factors": {"draft": by_drafter}})
        return drafts, seconds

    def _judged(self, question: Question, drafts: Sequence[dict[str, Any]]) -> float:
        """The target's two factors of each draft, by one pass over all; the seconds it took."""
        judging: Judging = self._wording.judging(question.text)
        rows = [[*judging.before, *each["tokens"], *judging.after, *judging.yes] for each in drafts]
        logprobs_BS, seconds = self._timed(self._read, rows, self._drafts, self._given.target, 0)
        for row, each in enumerate(drafts):
            start, written = len(judging.before), len(each["tokens"])
            end = len(rows[row])
            each["factors"]["consistency"] = likelihood(logprobs_BS[row, start : start + written])
            sure = likelihood(logprobs_BS[row, end - len(judging.yes) : end])
            each["factors"]["reflection"] = sure if written else 0.0
        return seconds

    def _plain(self, found: Found) -> dict[str, Any]:
        """What the target answers from all passages at once."""
        prompt = self._wording.plain(found.question.text, found.passages)
        made, seconds = self._timed(self._answer, [prompt], 1, self._given.target, self._new)
        tokens = self._words(made, 0, len(prompt))
        said = data.continuation(prompt, tokens, self._wording.tokenizer, special=False)
        mark = self._wording.prompts.answer
        return {"answer": self._wording.prompts.parts(mark + said)[0], "tokens": len(tokens), "seconds": seconds}

    def _words(self, made, row: int, start: int) -> list[int]:
        """The tokens of a text without its end."""
        tokens = made.tokens_BS[row, start : made.lengths_B[row]].tolist()
        return self._wording.cut(tokens[:-1] if tokens and tokens[-1] in self._ends.ids else tokens)

    def _timed(self, program: Program, rows: Sequence[Sequence[int]], size: int, model, new: int) -> tuple[Any, float]:
        """What the program makes of these rows in a batch of `size`, on the host; its seconds without compilation."""
        encoded = [data.Encoded(np.asarray(row, np.int32), len(row)) for row in rows]
        longest = model.config.max_positions - new
        [batch] = prompt_batches(encoded, size, longest=longest, pad_id=self._ends.closing)
        prompt = Context(self._place(batch["tokens_BT"]), self._place(batch["lengths_B"]))
        compiling, began = program.compile_seconds, time.perf_counter()
        made = processes.fetch(jax.block_until_ready(program(prompt, jax.random.key(0))))
        return made, time.perf_counter() - began - (program.compile_seconds - compiling)


def likelihood(logprobs_T: np.ndarray) -> float:
    """exp(mean), the geometric mean of the tokens' probabilities: the same for texts of any length; 0 for no token."""
    return float(np.exp(np.mean(logprobs_T, dtype=np.float64))) if len(logprobs_T) else 0.0


def summary(rows: Sequence[dict[str, Any]], *, resamples: int = 10_000) -> dict[str, Any]:
    """Means over the questions of Speculative RAG and of plain RAG, and how they compare, with 95 % intervals.

    `speedup` is plain RAG's seconds over Speculative RAG's. Scores are of the questions whose answers are known, None
    where there are none.
    """
    ours, theirs = [sum(row["seconds"].values()) for row in rows], [row["plain"]["seconds"] for row in rows]
    parts = {name: float(np.mean([row["seconds"][name] for row in rows])) for name in ("drafting", "scoring")}
    known = [row for row in rows if row["score"] is not None]
    scores = [[row["score"] for row in known], [row["plain"]["score"] for row in known]]
    of_scores = [float(np.mean(each)) if known else None for each in scores]
    seconds_2Q, scores_2Q = np.array([ours, theirs]), np.array(scores)

    def gain(weights_RQ):
        return weights_RQ @ (scores_2Q[0] - scores_2Q[1]) / weights_RQ.sum(1)

    def faster(weights_RQ):
        return (weights_RQ @ seconds_2Q[1]) / (weights_RQ @ seconds_2Q[0])

    return {
        "questions": len(rows),
        "scored": len(known),
        "speculative_rag": {"score": of_scores[0], "seconds": float(np.mean(ours)), **parts},
        "plain_rag": {"score": of_scores[1], "seconds": float(np.mean(theirs))},
        "gain": of_scores[0] - of_scores[1] if known else None,
        "gain_ci95": interval(len(known), gain, resamples=resamples) if known else None,
        "speedup": sum(theirs) / sum(ours),
        "speedup_ci95": interval(len(rows), faster, resamples=resamples),
    }


def _score(said: str, question: Question) -> float | None:
    return holds_an_answer(said, question.answers) if question.answers else None
