"""Every test sees 8 CPU devices, strict rank promotion and full-precision matmuls."""

import functools
import gc
import os
import sys
from importlib import import_module
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Compiling is most of what the tests do, running and tracing toys the rest; less of both without LLVM's optimisation
# and fusion emitters, in one piece and with one thread per operation. Processes that tests start inherit the flags, so
# bits are compared alike; `tests.running.optimised` is for equal bits of two programs, which unoptimised code does not
# always round alike. XLA dies of a flag that it does not know: set for the versions where they were tried.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_multi_thread_eigen=false"
)
if (0, 7) <= tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()  # a caller's come later, and win
# PyTorch's threads wait for each other busily: for models this small, beside other workers, most of its time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Traced programs are millions of small objects without circles, over which Python's collector goes again and again.
# `_forget_compiled_programs` collects what a file leaves, `pytest_collection_finish` leaves out what is imported.
gc.set_threshold(200_000, 20, 100)

# Where launch/setup.sh puts libtpu: known to tests that compile for TPUs, not to the programs they start.
if (compiler := Path(sys.prefix) / "tpu-compiler").is_dir():
    sys.path.append(str(compiler))

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# jax registers every dialect anew for each program that it lowers, which takes longer than lowering a small one: the
# programs of one file share what one registration made. Not jax's public interface: a version without it goes slower.
_shared_context = functools.cache(getattr(mlir, "make_ir_context", lambda: None))
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = _shared_context


def _begun_once(initial_params):
    """Toy models of one shape and key begin alike in every file: compiled and drawn once, and handed out as copies."""
    drawn = {}

    def begin(key, **statics):
        if isinstance(key, jax.core.Tracer) or key.size > 1 or not key.is_fully_addressable:
            return initial_params(key, **statics)
        which = (
            jax.random.key_impl(key),
            jax.random.key_data(key).tobytes(),
            *sorted(statics.items(), key=itemgetter(0)),
        )
        if which not in drawn:
            params = initial_params(key, **statics)
            if sum(leaf.size for leaf in jax.tree.leaves(params)) > 1_000_000:
                return params
            drawn[which] = jax.device_get(params)
        return jax.tree.map(jax.numpy.array, drawn[which])

    return begin


causal_lm = import_module("adaspec_jax.models.causal_lm")
causal_lm._initial_params = _begun_once(causal_lm._initial_params)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Compiled programs stay mapped, and with jax 0.7.2 one process for all files ran into Linux's vm.max_map_count."""
    yield
    jax.clear_caches()
    _shared_context.cache_clear()
    gc.collect()


@pytest.fixture
def few_costs(monkeypatch):
    """The costs of rounds of up to three guesses, half the programs of a report: where no others are looked at."""
    monkeypatch.setattr(import_module("adaspec_jax.measuring.measure"), "LONGEST", 3)


@pytest.fixture(scope="module")
def few_costs_throughout():
    """The same for a whole file, its fixtures too; `tests/pipeline/test_pipeline.py` has the report with all costs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(import_module("adaspec_jax.measuring.measure"), "LONGEST", 3)
        yield


# The files that take longest, so that no worker is left alone with one of them (`--no-loadscope-reorder`).
FIRST = [f"tests/{name}.py" for name in ("faults/test_campaign", "devices/test_processes", "pipeline/test_pipeline")]
FIRST += [f"tests/{name}.py" for name in ("pipeline/test_heads", "pipeline/test_arms", "parity/test_parity")]
FIRST += [f"tests/{name}.py" for name in ("pipeline/test_teacher", "planning/test_plans", "pipeline/test_memory")]
FIRST += [f"tests/{name}.py" for name in ("pipeline/test_chat", "pipeline/test_cut", "decoding/test_dialogue")]


SLOW = [line for line in Path(__file__).with_name("slow.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.hookimpl(tryfirst=True)  # before the marks are asked for
def pytest_collection_modifyitems(config, items):
    _mark_slow(config, items)
    if not hasattr(config, "workerinput"):  # one process runs files as they are given
        return
    order = {file: place for place, file in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


def pytest_collection_finish():
    """What is imported by now, half a million objects, stays: no collection goes over it again."""
    gc.collect()
    gc.freeze()


def _mark_slow(config, items):
    """As tests/slow.txt has it; an error where it names what is not there any more."""
    by_name = {}
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        for key in {name, name.partition("[")[0]}:
            by_name.setdefault(key, []).append(item)
    for line in SLOW:
        for item in by_name.get(line, ()):
            item.add_marker(pytest.mark.slow)
    if not config.args_source.name == "ARGS":  # all files were read
        assert not (gone := [line for line in SLOW if line not in by_name]), f"tests/slow.txt names {gone[0]}"


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
