"""Passages in groups of like content, and picks of one from each: as different views of a question as they allow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from adaspec_jax.errors import UserError


def clusters(passages: Sequence[str], count: int, *, seed: int = 0) -> list[list[int]]:
    """Numbers of the passages in `count` groups, by k-means on TF-IDF; fewer where they do not differ so much.

    Speculative RAG (arXiv 2407.08223) embeds passages by a model that is told the question; TF-IDF is ours. ValueError
    for fewer passages than groups, UserError where scikit-learn is not installed.
    """
    if len(passages) < count:
        raise ValueError(f"{len(passages)} passages cannot be put into {count} groups")
    if count == 1:
        return [list(range(len(passages)))]
    if find_spec("sklearn") is None:
        raise UserError("clusters of passages need scikit-learn: pip install scikit-learn")
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        features_PW = TfidfVectorizer(token_pattern=r"(?u)\w+").fit_transform(passages)
    except ValueError:  # no word at all
        return [list(range(len(passages)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer groups than asked for
        label_P = KMeans(count, n_init=10, random_state=seed).fit_predict(features_PW)
    groups = [np.flatnonzero(label_P == label).tolist() for label in range(count)]
    return sorted(group for group in groups if group)


def subsets(groups: Sequence[Sequence[int]], count: int, *, seed: int = 0) -> list[tuple[int, ...]]:
    """`count` different picks of one number from each group, at random; all picks there are, where they are fewer."""
    sizes = [len(group) for group in groups]
    picks = range(math.prod(sizes))
    drawn = random.Random(seed).sample(picks, min(count, len(picks)))
    places = [np.unravel_index(pick, sizes) for pick in drawn]
    return [tuple(sorted(group[at] for group, at in zip(groups, place, strict=True))) for place in places]
