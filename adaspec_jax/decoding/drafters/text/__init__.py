"""Drafters whose guesses are copied from text: a row's own, or a collection's."""
