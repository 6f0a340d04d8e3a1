"""Drafters whose guesses come from text alone, a row's own or a collection's, or from what verifications taught."""
