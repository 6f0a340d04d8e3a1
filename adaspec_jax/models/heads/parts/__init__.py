"""What heads of several kinds share; no kind of its own."""
