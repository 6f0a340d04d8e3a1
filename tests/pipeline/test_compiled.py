"""What a kill tore of the compiled programs beside a run is compiled again, and kept."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.running import CHECKOUT, PATIENCE

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from adaspec_jax.pipeline.compiled import keep_compiled_programs
keep_compiled_programs(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((9, 9))))
"""


def compiled(directory):
    """What a process says that keeps its programs there: (result, complaints)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory],
        env=kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.skipif(find_spec("zstandard") is not None, reason="jax packs with zstandard here, which has no checksum")
def test_torn_programs_are_taken_away_and_whole_ones_stay(tmp_path):
    result, _ = compiled(tmp_path)
    before = {entry: entry.read_bytes() for entry in tmp_path.glob("*-cache")}
    assert len(before) >= 2
    torn, empty = sorted(before)[:2]
    torn.write_bytes(before[torn][:200])
    empty.write_bytes(b"")
    times = {entry: entry.stat().st_mtime_ns for entry in before}
    again, complaints = compiled(tmp_path)
    assert again == result and "cache entry" not in complaints
    assert {entry: entry.stat().st_size > 0 for entry in before} == dict.fromkeys(before, True)
    assert {entry for entry in before if entry.stat().st_mtime_ns == times[entry]} == set(before) - {torn, empty}
