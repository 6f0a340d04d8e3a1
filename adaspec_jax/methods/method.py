"""What a published system is here: which drafter it makes of what is given, and by which rule guesses are accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple

from adaspec_jax.decoding import Sampling, rejection_sample
from adaspec_jax.decoding.drafters.models.foreign import Foreign
from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.decoding.types import Drafter, Model
from adaspec_jax.errors import UserError
from adaspec_jax.knobs import MOST_GUESSES, checked, spelt
from adaspec_jax.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method may make its drafter of."""

    target: Model
    drafts: Mapping[str, Model] = field(default_factory=dict)  # plain draft models by their names, the smallest first
    qualifier: str | None = None  # which of them stands between the smallest and the target; None: the next larger
    foreign: Mapping[str, Foreign] = field(default_factory=dict)  # drafts with a tokenizer of their own, likewise
    heads: Mapping[str, Head] = field(default_factory=dict)  # on the target's features, by their names
    stops: Mapping[str, Any] = field(default_factory=dict)  # trained on drafts of these names: `models.StopHead`s
    tokenizer: Any = None
    datastore: Any = None  # texts to copy from: a `decoding.drafters.text.datastore.Datastore`
    draft_length: int = 5  # guesses in a row
    costs: Callable[[Given, Drafter, int], Mapping[int, RoundCosts]] | None = None  # of rounds of a chain with up to so
    # many guesses, by batch size, measured when a method asks; see `measuring.costs.rounds_priced`

    @property
    def draft(self) -> Model:
        """The smallest draft: the one that drafts. KeyError where there is none."""
        if not self.drafts:
            raise KeyError("no draft is given")
        return next(iter(self.drafts.values()))

    def changed(self, change: Callable[[Any], Any]) -> Given:
        """With every model and head changed; one that is both target and draft is changed once, and stays one.

        A head reads embeddings and output matrix of the target that is given beside it: here they change with it.
        """
        there = {id(model): change(model) for model in (self.target, *self.drafts.values())}
        return replace(
            self,
            target=there[id(self.target)],
            drafts={name: there[id(model)] for name, model in self.drafts.items()},
            heads={name: change(head) for name, head in self.heads.items()},
            foreign={name: replace(each, model=change(each.model)) for name, each in self.foreign.items()},
        )

    def in_words(self) -> str:
        """Each draft's name and what it is."""
        said = dict.fromkeys(self.drafts, "a draft model")
        said |= dict.fromkeys(self.foreign, "a draft with a tokenizer of its own")
        said |= {name: f"a head of the kind {head.config.name}" for name, head in self.heads.items()}
        return ", ".join(f"{name} ({what})" for name, what in said.items())

    @property
    def between(self) -> Model | None:
        """The draft that stands between the smallest one and the target; None where there is none."""
        larger = dict(list(self.drafts.items())[1:])
        return larger[self.qualifier] if self.qualifier in larger else next(iter(larger.values()), None)


class Need(NamedTuple):
    """Something a method cannot do without."""

    words: str
    is_met: Callable[[Given], bool]


A_DRAFT = Need("a draft model (--draft PATH)", lambda given: bool(given.drafts))
COSTS = Need("a target whose rounds can be timed", lambda given: given.costs is not None)
A_FOREIGN_DRAFT = Need("a draft with a tokenizer of its own (--draft PATH)", lambda given: bool(given.foreign))
A_DATASTORE = Need("a datastore (--datastore DIR)", lambda given: given.datastore is not None)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A system under the name its paper gave it, in lower case with underscores.

    `knobs` are what may be set, with defaults; `drafter(given, **knobs)` gets them. None: a number that follows from
    what is given. `rule_knobs` names fields of the rule, a frozen dataclass, or has {knob: field}: they are knobs too,
    with the rule's own values as defaults, and `accept` is always the rule as it is set.
    """

    name: str
    drafter: Callable[..., Drafter]
    accept: Callable[..., Any] = rejection_sample
    lossless: bool = True  # whether committed tokens follow the target's law exactly: what `accept.lossless` says
    paper: str = ""
    needs: tuple[Need, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    rule_knobs: tuple[str, ...] | Mapping[str, str] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)  # those that were set

    def __post_init__(self) -> None:
        if getattr(self.accept, "lossless", self.lossless) != self.lossless:
            said, does = ("lossless", "is not") if self.lossless else ("lossy", "is lossless")
            raise ValueError(f"the method {self.name} is said to be {said}, and its rule {does}")
        settable = {each.name for each in fields(self.accept)} if is_dataclass(self.accept) else set()
        for each in self._fields.values():
            if each not in settable:
                raise ValueError(f'the method {self.name} names a knob of its rule, which has no field "{each}"')
        of_rule = {name: getattr(self.accept, each) for name, each in self._fields.items()}
        object.__setattr__(self, "knobs", {**of_rule, **self.knobs})
        if any({**self.knobs, **self.chosen}[name] != value for name, value in of_rule.items()):
            raise ValueError(
                f"the method {self.name} has a knob that is its drafter's and its rule's: {tuple(self._fields)}"
            )

    @property
    def _fields(self) -> Mapping[str, str]:
        """The rule's fields by the names of their knobs."""
        names = self.rule_knobs
        return names if isinstance(names, Mapping) else {name: name for name in names}

    @property
    def label(self) -> str:
        """Its name, with what was set: "prompt_lookup[window=5]"."""
        return _label(self.name, self.chosen)

    @property
    def translates(self) -> bool:
        """Whether its draft has a tokenizer of its own."""
        return A_FOREIGN_DRAFT in self.needs

    def set(self, **values: Any) -> Method:
        """The same method with these knobs, as values or as text.

        `UserError` for one that it lacks or cannot read, or that its rule cannot work with.
        """
        values = checked(f"the method {self.name}", self.knobs, values)
        chosen = {**self.chosen, **values}
        of_rule = {self._fields[name]: value for name, value in values.items() if name in self._fields}
        try:
            rule: Any = self.accept
            accept = replace(rule, **of_rule) if of_rule else self.accept
        except ValueError as error:
            raise UserError(f"the method {_label(self.name, chosen)}: {error}") from None
        return replace(self, chosen=chosen, accept=accept)

    def lacks(self, given: Given) -> str | None:
        """What is missing, in words: "needs a draft model (--draft PATH)"; None where nothing is."""
        missing = [need.words for need in self.needs if not need.is_met(given)]
        return f"needs {' and '.join(missing)}" if missing else None

    def check(self, given: Given) -> None:
        """`UserError` where something it needs is not given."""
        if lack := self.lacks(given):
            there = given.in_words()
            raise UserError(f"the method {self.name} {lack}{f'; given: {there}' if there else ''}")

    def heads_in(self, given: Given) -> list[str]:
        """The names of the given heads of which it could make its drafter, each alone."""
        if not self.lacks(replace(given, heads={})):
            return []
        return [name for name, head in given.heads.items() if not self.lacks(replace(given, heads={name: head}))]

    def check_sampling(self, sampling: Sampling) -> None:
        """`UserError` where its rule has no say in text so sampled."""
        if sampling.shares_noise and not self.lossless:
            raise UserError(
                f"the method {self.label} is lossy, and shared noise settles what the target writes; leave it out"
            )

    def make(self, given: Given) -> Drafter:
        """The drafter.

        `UserError` where something it needs is not given, or a second head that could be it, or a knob cannot be what
        it was set to.
        """
        self.check(given)
        if len(heads := self.heads_in(given)) > 1:
            raise UserError(f"the method {self.name} takes one head, and {' and '.join(heads)} are of its kind")
        knobs = {name: value for name, value in {**self.knobs, **self.chosen}.items() if name not in self._fields}
        try:
            drafter = self.drafter(given, **knobs)
        except (ValueError, MemoryError) as error:  # a drafter's own word on a number that it cannot work with
            raise UserError(f"the method {self.label}: {error}") from None
        if drafter.num_nodes > MOST_GUESSES:
            raise UserError(
                f"the method {self.label} makes {drafter.num_nodes:,} guesses; at most {MOST_GUESSES:,} fit"
            )
        return drafter


def _label(name: str, chosen: Mapping[str, Any]) -> str:
    said = ",".join(f"{knob}={spelt(value)}" for knob, value in chosen.items())
    return f"{name}[{said}]" if said else name
