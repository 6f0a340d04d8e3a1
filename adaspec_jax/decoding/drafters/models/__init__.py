"""Drafters whose guesses come from a second model."""
