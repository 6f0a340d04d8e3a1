"""A row of tokens, some of which are labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One example as tokens: the prompt's, then the answer's, then the end of text; or a conversation's; or a pack."""

    tokens: np.ndarray  # [T] int32
    prompt_length: int  # 1 <= prompt_length; what is asked before the first label
    labels: np.ndarray | None = None  # [T] bool, none before prompt_length; None: all of tokens[prompt_length:]
    roles: np.ndarray | None = None  # [T] int8: whose words a token is of, by chat.ROLES; -1: the template's
    segments: np.ndarray | None = None  # [T] int32, from 1 on: which example of a pack a token is of; None: no pack

    @property
    def prompt(self) -> np.ndarray:
        """[prompt_length] int32."""
        return self.tokens[: self.prompt_length]

    @property
    def labels_T(self) -> np.ndarray:
        """[T] bool: which tokens are supervised."""
        if self.labels is None:
            return np.arange(len(self.tokens)) >= self.prompt_length
        return self.labels

    @property
    def num_labels(self) -> int:
        return len(self.tokens) - self.prompt_length if self.labels is None else int(self.labels.sum())

    @property
    def predicting(self) -> np.ndarray | slice:
        """The positions that predict the labels, in order."""
        if self.labels is None:
            return slice(self.prompt_length - 1, len(self.tokens) - 1)
        return np.flatnonzero(self.labels) - 1
