"""Drafters that are the target itself with less to do: fewer sublayers, fewer layers, fewer keys."""
