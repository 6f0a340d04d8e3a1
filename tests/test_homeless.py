"""Commands work where there is no home, or none that may be written to, and no network."""

import os
import subprocess
import sys

import pytest

from tests import tiny_pair
from tests.running import CHECKOUT, PATIENCE

# Any attempt to reach another machine fails the command: the hub, telemetry, a look for a TPU's metadata server.
GUARD = """
import sys
def guarded(event, args):
    if event in ("socket.connect", "socket.getaddrinfo") and args[-1] and "localhost" not in str(args):
        raise SystemExit(f"network: {event} {args}")
sys.addaudithook(guarded)
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair") / "run"
    llama = tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS}
    return tiny_pair.save_run(directory, target=llama, draft=llama)


@pytest.mark.parametrize("home", ["none", "read-only"])
def test_a_prompt_is_answered_without_a_home_and_without_a_network(home, pair, tmp_path):
    places = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TRANSFORMERS_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in places}
    homes = {"none": {}, "read-only": {"HOME": "/proc/self"}}[home]  # where not even root may write
    program = f"{GUARD}\nimport runpy\nrunpy.run_module('adaspec_jax.generate', run_name='__main__', alter_sys=True)"
    options = ("--target", pair / "target", "--draft", pair / "draft", "--prompt", "Tom has", "--max_new_tokens", "8")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, options)],
        cwd=tmp_path,
        env=kept | homes | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not os.listdir(tmp_path)


def test_the_guard_sees_a_connection():
    done = subprocess.run(
        [sys.executable, "-c", f"{GUARD}\nimport socket\nsocket.create_connection(('192.0.2.1', 9), timeout=1)"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "network: socket." in done.stderr
