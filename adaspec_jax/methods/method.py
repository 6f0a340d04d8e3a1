"""What a published system is here: which drafter it makes of what is given, and by which rule guesses are accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from adaspec_jax.decoding import rejection_sample
from adaspec_jax.decoding.types import Drafter, Model
from adaspec_jax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method may make its drafter of."""

    target: Model
    drafts: Mapping[str, Model] = field(default_factory=dict)  # plain draft models by their names, the smallest first
    tokenizer: Any = None
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


@dataclass(frozen=True, kw_only=True)
class Method:
    """A system under the name its paper gave it, in lower case with underscores."""

    name: str
    drafter: Callable[[Given], Drafter]
    accept: Callable[..., Any] = rejection_sample
    lossless: bool = True  # whether committed tokens follow the target's law exactly: what `accept.lossless` says
    paper: str = ""
    needs: tuple[Need, ...] = ()

    def __post_init__(self) -> None:
        if getattr(self.accept, "lossless", self.lossless) != self.lossless:
            said, does = ("lossless", "is not") if self.lossless else ("lossy", "is lossless")
            raise ValueError(f"the method {self.name} is said to be {said}, and its rule {does}")

    def lacks(self, given: Given) -> str | None:
        """What is missing, in words: "needs a draft (--draft PATH)"; None where nothing is."""
        missing = [need.words for need in self.needs if not need.is_met(given)]
        return f"needs {' and '.join(missing)}" if missing else None

    def check(self, given: Given) -> None:
        """`UserError` where something it needs is not given."""
        if lack := self.lacks(given):
            raise UserError(f"the method {self.name} {lack}")

    def make(self, given: Given) -> Drafter:
        """The drafter; `UserError` where something it needs is not given."""
        self.check(given)
        return self.drafter(given)
