"""What is done to a finished run, or to the prompts that it is served, so that acceptance falls for a known reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaspec_jax import data, models
from tests.diagnosis.runs import Set

_INSTRUCTION = "\nAnswer the above question."


def another_tokenizer(run: Path, made: Set) -> None:
    """The draft's tokenizer files are of one that was trained on other texts."""
    texts = [
        text for example in data.load_examples("word_problems", "train", num=60, seed=99) for text in example.texts
    ]
    data.train_bpe(texts, vocab_size=made.vocabulary).save_pretrained(run / "draft")


def other_ids(run: Path, made: Set) -> None:
    """The draft's weights are of a tokenizer whose tokens have another order; the files beside them do not say so."""
    order = np.random.default_rng(made.seed).permutation(made.vocabulary)

    def moved(params: dict[str, Any]) -> dict[str, Any]:
        embedding = params["embed"]["embedding"][order]
        head = params["head"] | {"kernel": params["head"]["kernel"][:, order]}
        return params | {"embed": params["embed"] | {"embedding": embedding}, "head": head}

    _change_draft(run, moved)


def never_ends(run: Path, made: Set) -> None:
    """The draft has never learnt the end of text: it gives it what it gives the rarest token."""
    end = 0
    rarest = _rarest(run)
    _change_head(run, lambda kernel: kernel.at[:, end].set(kernel[:, rarest]))


def sharper(run: Path, made: Set) -> None:
    """The draft is as sure as one that was made for a temperature of 0.4."""
    _change_head(run, lambda kernel: kernel * 2.5)


def far_from_zero(run: Path, made: Set) -> None:
    """All logits of the draft have a large part in common, which changes nothing but how they are rounded."""
    _change_head(run, lambda kernel: kernel + _common(kernel, made))


def sharp_and_far(run: Path, made: Set) -> None:
    _change_head(run, lambda kernel: 2.5 * kernel + 8 * _common(kernel, made))


def _common(kernel, made: Set):
    """[D, 1], much larger than the kernel's own entries."""
    draws = np.random.default_rng(made.seed).normal(size=(kernel.shape[0], 1)).astype(np.float32)
    return 300 * float(np.std(kernel)) * draws


def without_instruction(made: Set) -> list[tuple[str, str]]:
    """Problems as they are asked by whoever does not know how the draft was trained."""
    return [(e.prompt[: e.prompt.index(_INSTRUCTION)] + "\n", e.answer) for e in _problems(made, "test")]


def seen_before(made: Set) -> list[tuple[str, str]]:
    """Every fourth was trained on."""
    seen, new = _problems(made, "train"), _problems(made, "test")
    return [(e.prompt, e.answer) for i, e in enumerate(new) for e in [seen[i] if i % 4 == 0 else e]]


def other_questions(made: Set) -> list[tuple[str, str]]:
    """Of things that no word problem speaks of, under the same instruction."""
    dice = np.random.default_rng(made.seed)
    begin = ("Describe", "Explain", "Write a poem about", "Translate into French:", "Summarize what is known about")
    about = (
        "the history of volcanoes",
        "quantum entanglement",
        "a lighthouse keeper",
        "jazz harmony",
        "photosynthesis",
    )
    rest = ("for a young audience", "with three examples", "in a formal tone", "and its critics", "briefly, please")
    rows = []
    for _ in range(made.prompts):
        text = " ".join(str(dice.choice(part)) for part in (begin, about, rest))
        again = " ".join(str(dice.choice(part)) for part in (begin, about, rest))
        asked = f"{text}. Then {again.lower()}.\nAnswer the above question. First think step by step and then answer "
        rows.append((f"{asked}the final number.\n", "There is nothing to compute."))
    return rows


def _problems(made: Set, split: str) -> data.Source:
    return data.load_examples("word_problems", split, num=made.prompts, seed=made.seed)


def _rarest(run: Path) -> int:
    """A token that the target almost never gives: the one with the least mean logit over some text."""
    target, tokenizer = models.load(run / "target"), data.load_tokenizer(run / "tokenizer")
    tokens = tokenizer("Tom has 12 apples and eats 3 of them.")["input_ids"]
    logits_TV = np.asarray(target(np.array([tokens]))[0][0])
    return int(np.argmin(logits_TV.mean(axis=0)))


def _change_head(run: Path, change) -> None:
    def changed(params: dict[str, Any]) -> dict[str, Any]:
        return params | {"head": params["head"] | {"kernel": change(params["head"]["kernel"])}}

    _change_draft(run, changed)


def _change_draft(run: Path, change) -> None:
    draft = models.load(run / "draft")
    changed = dataclasses.replace(draft, params=jax.tree.map(jax.numpy.asarray, change(draft.params)))
    models.save(changed, run / "draft", tokenizer=data.load_tokenizer(run / "tokenizer"))
