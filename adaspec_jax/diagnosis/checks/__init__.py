"""The checklist: each line a function of the evidence alone."""
