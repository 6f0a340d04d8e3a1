"""What a published system is here: which drafter it makes of what is given, and by which rule guesses are accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from adaspec_jax.decoding import rejection_sample
from adaspec_jax.decoding.drafters.models.foreign import Foreign
from adaspec_jax.decoding.types import Drafter, Model
from adaspec_jax.errors import UserError
from adaspec_jax.methods.knobs import checked, spelt


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method may make its drafter of."""

    target: Model
    drafts: Mapping[str, Model] = field(default_factory=dict)  # plain draft models by their names, the smallest first
    foreign: Mapping[str, Foreign] = field(default_factory=dict)  # drafts with a tokenizer of their own, likewise
    tokenizer: Any = None
    datastore: Any = None  # texts to copy from: a `decoding.drafters.text.datastore.Datastore`
    draft_length: int = 5  # guesses in a row

    @property
    def draft(self) -> Model:
        """The smallest draft: the one that drafts. KeyError where there is none."""
        if not self.drafts:
            raise KeyError("no draft is given")
        return next(iter(self.drafts.values()))


class Need(NamedTuple):
    """Something a method cannot do without."""

    words: str
    is_met: Callable[[Given], bool]


A_DRAFT = Need("a draft (--draft PATH)", lambda given: bool(given.drafts))
A_FOREIGN_DRAFT = Need("a draft with a tokenizer of its own (--draft PATH)", lambda given: bool(given.foreign))
A_DATASTORE = Need("a datastore (--datastore DIR)", lambda given: given.datastore is not None)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A system under the name its paper gave it, in lower case with underscores.

    `knobs` are what may be set, with defaults; `drafter(given, **knobs)` gets them all. None: a number that follows
    from what is given.
    """

    name: str
    drafter: Callable[..., Drafter]
    accept: Callable[..., Any] = rejection_sample
    lossless: bool = True  # whether committed tokens follow the target's law exactly: what `accept.lossless` says
    paper: str = ""
    needs: tuple[Need, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)  # those that were set

    def __post_init__(self) -> None:
        if getattr(self.accept, "lossless", self.lossless) != self.lossless:
            said, does = ("lossless", "is not") if self.lossless else ("lossy", "is lossless")
            raise ValueError(f"the method {self.name} is said to be {said}, and its rule {does}")

    @property
    def label(self) -> str:
        """Its name, with what was set: "prompt_lookup[window=5]"."""
        said = ",".join(f"{name}={spelt(value)}" for name, value in self.chosen.items())
        return f"{self.name}[{said}]" if said else self.name

    @property
    def translates(self) -> bool:
        """Whether its draft has a tokenizer of its own."""
        return A_FOREIGN_DRAFT in self.needs

    def set(self, **values: Any) -> Method:
        """The same method with these knobs, as values or as text; `UserError` for one that it lacks or cannot read."""
        return replace(self, chosen={**self.chosen, **checked(self.name, self.knobs, values)})

    def lacks(self, given: Given) -> str | None:
        """What is missing, in words: "needs a draft (--draft PATH)"; None where nothing is."""
        missing = [need.words for need in self.needs if not need.is_met(given)]
        return f"needs {' and '.join(missing)}" if missing else None

    def check(self, given: Given) -> None:
        """`UserError` where something it needs is not given."""
        if lack := self.lacks(given):
            raise UserError(f"the method {self.name} {lack}")

    def make(self, given: Given) -> Drafter:
        """The drafter; `UserError` where something it needs is not given, or a knob cannot be what it was set to."""
        self.check(given)
        try:
            return self.drafter(given, **{**self.knobs, **self.chosen})
        except ValueError as error:  # a drafter's own word on a number that it cannot work with
            raise UserError(f"the method {self.label}: {error}") from None
