"""Drafters that read text alone, or what the target's verifications taught."""
