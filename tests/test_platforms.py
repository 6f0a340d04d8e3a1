"""A platform that JAX_PLATFORMS asks for in vain is one line and exit status 2; other errors stay whole."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from adaspec_jax.errors import exit_with_one_line
from tests import tiny_pair
from tests.running import CHECKOUT, PATIENCE, slow

NO_GPU = pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]")), reason="it is here")


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair") / "target"
    tiny_pair.save(directory, tiny_pair.GPT_NEOX | {"vocab_size": tiny_pair.TOKENS})
    return directory


@pytest.mark.parametrize(
    "door, platform",
    [
        ("generate", "abacus"),
        ("train", "cpu,abacus"),
        pytest.param("generate", "cuda", marks=NO_GPU),
        slow("train", "abacus"),
        slow("generate", "cpu,abacus"),
        pytest.param("train", "cuda", marks=[NO_GPU, pytest.mark.slow]),
    ],
)
def test_a_platform_that_is_not_here_is_one_line(target, tmp_path, door, platform):
    arguments = {
        "generate": ["--target", target, "--prompt", "Tom"],
        "train": ["--config", CHECKOUT / "configs" / "quickstart.py", "--workdir", tmp_path / "w"],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"adaspec_jax.{door}", *arguments[door]],
        cwd=CHECKOUT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f'error: JAX_PLATFORMS asks for "{platform}", which jax does not find here')
    assert "unset it, or set it to cpu" in done.stderr


@pytest.fixture
def asking_for_a_tpu():
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu")
    yield
    jax.config.update("jax_platforms", before)


def fails_with(error):
    def main():
        raise error

    return main


def test_what_jax_says_is_kept_and_so_is_what_it_was_asked_for(asking_for_a_tpu, capsys):
    said = "Unable to initialize backend 'tpu': no chip answers (set JAX_PLATFORMS='' to automatically choose one)"
    with pytest.raises(SystemExit) as exit_info:
        exit_with_one_line(fails_with(RuntimeError(said)))
    line = capsys.readouterr().err
    assert exit_info.value.code == 2 and line.count("\n") == 1 and "set JAX_PLATFORMS=''" not in line
    assert 'asks for "tpu", which jax does not find here (no chip answers); unset it, or set it to cpu' in line
    assert jax.config.jax_platforms == "tpu"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), AssertionError(), NotImplementedError("later")])
def test_another_error_keeps_its_traceback(asking_for_a_tpu, error):
    with pytest.raises(type(error)) as caught:
        exit_with_one_line(fails_with(error))
    assert caught.value is error


def test_an_error_before_jax_is_imported_is_not_asked_of_jax(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax")
    with pytest.raises(AssertionError):
        exit_with_one_line(fails_with(AssertionError()))
    assert "jax" not in sys.modules
