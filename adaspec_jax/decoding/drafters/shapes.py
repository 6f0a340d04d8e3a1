"""The shapes of proposals that are the same in every round: guesses in a row, and a tree level by level."""

from __future__ import annotations

from typing import Protocol

from adaspec_jax.decoding.drafters.levels import Counts, checked, nodes_of


class _Limited(Protocol):
    guesses: int  # in a row, at most


class InARow:
    """Of a drafter of `length` guesses, each after the one before; ValueError below 1."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length is {self.length}; it must be at least 1")

    @property
    def num_nodes(self) -> int:
        return self.length

    @property
    def depth(self) -> int:
        return self.length


class UpToItsGuesses(InARow):
    """`length` guesses in a row, or as many as its head makes."""

    head: _Limited

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "length", min(self.length, self.head.guesses))


class InLevels:
    """Of a drafter of a tree whose nodes have so many children, level by level; ValueError where they are no tree's."""

    counts: Counts

    def __post_init__(self) -> None:
        checked(self.counts)

    @property
    def num_nodes(self) -> int:
        return nodes_of(self.counts)

    @property
    def depth(self) -> int:
        return len(self.counts)


class AsDeepAsItsGuesses(InLevels):
    """A tree by levels; ValueError where they are more than its head makes guesses in a row."""

    head: _Limited

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth > self.head.guesses:
            raise ValueError(f"{self.depth} guesses in a row are asked of heads that guess {self.head.guesses}")
