"""Arithmetic word problems, generated: data for runs without files or network."""

from adaspec_jax.data.word_problems.chats import generate_chats
from adaspec_jax.data.word_problems.generator import SPLITS, generate

__all__ = ["SPLITS", "generate", "generate_chats"]
