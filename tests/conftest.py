"""Every test sees 8 CPU devices, strict rank promotion and full-precision matmuls."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Compiling is most of what the tests do, and takes less so, for toys that then run a little slower. Programs may be
# fused otherwise than by default; the processes that tests start inherit the flags, so bits are compared alike. (At
# level 0 equal sums of two programs are not always rounded alike.) A caller's flags come later, and win.
QUICK = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()

# Where launch/setup.sh puts libtpu: known to tests that compile for TPUs, not to the programs they start.
if (compiler := Path(sys.prefix) / "tpu-compiler").is_dir():
    sys.path.append(str(compiler))

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Compiled programs stay mapped, and with jax 0.7.2 one process for all files ran into Linux's vm.max_map_count."""
    yield
    jax.clear_caches()


def _folder(variable: str, *parts: str) -> Path:
    """A path below the folder an environment variable names; skips the test where it is absent."""
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set")
    path = Path(root, *parts)
    if not path.exists():
        pytest.skip(f"{path.name} is not under {variable}")
    return path


@pytest.fixture
def shared_data():
    """`shared_data("gsm8k", "train.jsonl.gz")` is a real data file, or the test skips with the reason."""
    return lambda *parts: _folder("ADASPEC_DATA", *parts)


@pytest.fixture
def shared_weights():
    return lambda *parts: _folder("ADASPEC_WEIGHTS", *parts)
