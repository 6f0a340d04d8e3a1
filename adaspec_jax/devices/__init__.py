"""The devices of a run: its processes, its mesh, and TPU slices that are not there."""
