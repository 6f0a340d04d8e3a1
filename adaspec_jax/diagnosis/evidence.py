"""What is measured of a pair and its training: plain values, from which a checklist judges without a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A mean over tokens, with the middle 95 % of a bootstrap over texts."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Along:
    """What the pair says along texts of one kind; probabilities and acceptance are shares of 1, the rest nats."""

    texts: int
    tokens: int
    acceptance: Figure  # of guesses as they are served, each after the true text
    drawn: float  # the same, were they drawn from the draft's law
    agreement: float  # of the two argmaxes
    kl: float
    nats_target: Figure  # -log p of a token, on average
    nats_draft: float
    nats_unigram: float  # the same by the texts' own shares of each token
    entropy: float  # of the target
    likeliest: float  # the target's largest probability, at the served temperature
    sure: float  # share of tokens where that is large, and
    sure_acceptance: float | None  # acceptance there
    ended: float  # share of the texts with an end of text
    end_acceptance: float | None  # there
    end_target: float | None
    end_draft: float | None
    tempered: dict[str, float]  # acceptance with the draft's logits divided by so much more; {} where none is drawn


@dataclass(frozen=True)
class Prompts:
    """Of the prompts that are served, beside those that were trained on."""

    served: int
    trained: int
    shared: int  # served ones that were trained on
    new_pairs: float  # share of the served prompts' pairs of neighbouring tokens that training prompts lack
    usual_new_pairs: float  # the same of training prompts, held against others of them
    frame: str  # text with which all training prompts end or begin
    without_frame: float  # share of served prompts that lack it


@dataclass(frozen=True)
class Curve:
    """How a stage's training went: means over a tenth of its steps."""

    steps: int
    epochs: float  # that were gone through
    schedule: str
    agreement_half: float | None  # with the target, on training labels, about the middle of the steps
    agreement_end: float | None
    loss_half: float
    loss_end: float
    clipped: float | None  # share of the steps whose gradient was shortened
    asked_epochs: float | None = None  # what the config says, of which a budget may make more


@dataclass(frozen=True)
class Recipe:
    """Of the draft's settings, what AdaSPEC adds; and what that came to."""

    fraction: float
    normalize: str
    budget: str
    selection: str
    label_passes: float  # selected labels of all steps over the baseline's labels
    over_reference: tuple[float, float, float] | None  # acceptance above the baseline's, and its interval
    departures: tuple[str, ...]  # from the paper, in words


@dataclass(frozen=True)
class Served:
    """How the pair is used."""

    temperature: float
    dtype: str
    draft_length: int | None
    max_new_tokens: int
    guesses: str = "drawn"  # from the draft's law, or its "likeliest" token, where the target is sampled


@dataclass(frozen=True)
class Names:
    """By which the pair is called in the commands that a finding gives."""

    target: str
    draft: str
    prompts: str  # options that name the served prompts
    workdir: str | None = None
    own_prompts: str | None = None  # the same of what a run was measured on, where other ones are served
    file: str | None = None  # of served prompts, and
    column: str | None = None  # which of its columns they are


@dataclass(frozen=True)
class Evidence:
    """All of it; None where it was not measured."""

    names: Names
    served: Served
    tokenizer: str | None = None  # the first difference of the two tokenizers, in words
    own_tokenizer: bool = True  # whether the draft comes with one
    template: str | None = None  # the first difference of the two chat templates
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    is_head: bool = False  # whether the draft is one, on the target's features
    own: Along | None = None  # the target's answers to served prompts, as they are served
    own_to_trained: Along | None = None  # to prompts of the training data
    drawn: Along | None = None  # drawn at temperature 1, to prompts of the training data
    trained: Along | None = None  # the answers that were trained on
    held_out: Along | None = None  # the data's answers to served prompts
    framed: Along | None = None  # served prompts with the frame of those that were trained on
    other_dtype: dict[str, Figure] = dataclasses.field(default_factory=dict)  # acceptance along `own`, by dtype
    looping: float | None = None  # share of the answers that end in a repetition
    unended_rows: float | None = None  # share of the training answers that were cut before their end
    prompts: Prompts | None = None
    draft: Curve | None = None
    recipe: Recipe | None = None
    from_targets_answers: bool = False
    generated: bool = False  # whether the training data can be made as many as are wanted
    costs: list[dict[str, Any]] | None = None  # of a round's parts in seconds, here and now, measured a few times

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Evidence:
        """What `as_json` gave."""
        kinds = {"names": Names, "served": Served, "prompts": Prompts, "draft": Curve}
        given = dict(value)
        for name, kind in kinds.items():
            given[name] = None if given.get(name) is None else kind(**given[name])
        for name in ("own", "own_to_trained", "drawn", "trained", "held_out", "framed"):
            given[name] = None if given.get(name) is None else _along(given[name])
        given["other_dtype"] = {name: Figure(**figure) for name, figure in given["other_dtype"].items()}
        given["recipe"] = None if given.get("recipe") is None else _recipe(given["recipe"])
        return cls(**given)


def _along(value: Mapping[str, Any]) -> Along:
    figures = {name: Figure(**value[name]) for name in ("acceptance", "nats_target")}
    return Along(**{**value, **figures})


def _recipe(value: Mapping[str, Any]) -> Recipe:
    over = value["over_reference"]
    lists = {"departures": tuple(value["departures"]), "over_reference": None if over is None else tuple(over)}
    return Recipe(**{**value, **lists})
