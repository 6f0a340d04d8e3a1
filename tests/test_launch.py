"""The launch scripts in a sandbox: a copied launch/, a PATH of stand-ins, a `uv` that only writes down its calls."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.running import CHECKOUT, PATIENCE, slow

SCRIPTS = sorted([*CHECKOUT.glob("launch/*.sh"), CHECKOUT / ".ci" / "run"])
TOOLS = ["bash", "sh", "cat", "dirname", "env", "grep", "mkdir", "mv", "ps", "rm", "rmdir", "sleep"]
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
UV = f"""#!/bin/sh
echo "$@" >> "$UV_CALLS"
[ "$1" != venv ] || exec {BASE_PYTHON} -m venv --without-pip .venv
case "$*" in *${{UV_REFUSES:-nothing}}*) exit 1 ;; esac
exit "${{UV_STATUS:-0}}"
"""
PIP = """import os, pathlib, sys
with open(os.environ["UV_CALLS"], "a") as calls:
    print("pip", *sys.argv[1:], file=calls)
if "install" in sys.argv:
    for name in ["absl-py", "chex", "jax"] * 5:
        print(f"WARNING: Location 'file:///{name}/' is ignored: it is not there.", file=sys.stderr, flush=True)
        print(f"Collecting {name}==1 (from -r requirements.lock (line 1))")
    print("  Downloading jax-1-py3-none-any.whl (79.6 MB)")
    print("Installing collected packages: absl-py, chex, jax", flush=True)
    if os.environ.get("PIP_STATUS", "0") != "0":
        sys.exit("ERROR: No matching distribution found for chex==1")
"""


class Sandbox:
    """A checkout with the launch scripts in it, and a `bin` that is the whole PATH."""

    def __init__(self, root: Path):
        self.checkout, self.bin, self.calls = root / "a checkout", root / "bin", root / "calls"
        shutil.copytree(CHECKOUT / "launch", self.checkout / "launch", ignore=shutil.ignore_patterns("__pycache__"))
        (self.checkout / "requirements.lock").write_text("nothing==1\n")
        (self.checkout / "adaspec_jax").mkdir()
        (self.checkout / "adaspec_jax" / "train.py").write_text("import sys; print('trained', *sys.argv[1:])\n")
        self.bin.mkdir()
        for tool in TOOLS:
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)

    def put(self, name: str, script: str):
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def put_python(self, name: str, version: str, *, has_pip: bool = True):
        self.put(name, f"#!/bin/sh\necho {version} {'pip' if has_pip else 'nopip'} /opt/my {version}/python\n")

    def put_real_python_and_uv(self):
        self.put("python3", f'#!/bin/sh\nexec {BASE_PYTHON} "$@"\n')
        self.put("uv", UV)

    def put_tests(self):
        """What launch/test.sh runs once it is set up, and a jax that says which libtpu it wants."""
        for module in ("ruff", "pytest"):
            (self.checkout / f"{module}.py").write_text("")
        (self.checkout / "jax-1.dist-info").mkdir()
        wants = "Name: jax\nVersion: 1\nRequires-Dist: libtpu==0.0.1.*; extra == 'tpu'\n"
        (self.checkout / "jax-1.dist-info" / "METADATA").write_text(wants)

    def bash(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "PYTHON"))}
        environment = kept | {"PATH": str(self.bin), "UV_CALLS": str(self.calls)} | environment
        return subprocess.run(
            ["bash", *arguments], env=environment, cwd=self.bin, capture_output=True, text=True, timeout=PATIENCE
        )

    def quickstart(self, *arguments: str, **environment: str):
        return self.bash(str(self.checkout / "launch" / "quickstart.sh"), *arguments, **environment)

    def test(self, *arguments: str, **environment: str):
        return self.bash(str(self.checkout / "launch" / "test.sh"), *arguments, **environment)

    def function(self, command: str, **environment: str):
        return self.bash("-c", f"cd '{self.checkout}' && source launch/setup.sh && {command}", **environment)

    def uv_calls(self) -> list[str]:
        """What `uv` was asked since the last look."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return calls


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("name", ["quickstart.sh", "test.sh"])
def test_help_needs_no_python_and_makes_nothing(sandbox, name):
    done = sandbox.bash(str(sandbox.checkout / "launch" / name), "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: bash launch/{name}") and not done.stderr
    assert not (sandbox.checkout / ".venv").exists()


@pytest.mark.parametrize("versions", [(), ("3.10",), ("3.14",), ("3.10", "3.14")], ids=str)
@pytest.mark.parametrize("name", ["quickstart.sh", "test.sh"])
def test_a_machine_without_a_suitable_python_gets_one_clear_line(sandbox, name, versions):
    for command, version in zip(("python3", "python"), versions, strict=False):
        sandbox.put_python(command, version)
    done = sandbox.bash(str(sandbox.checkout / "launch" / name))
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Python 3.11, 3.12 or 3.13 is needed") and all(v in line for v in versions)
    assert not (sandbox.checkout / ".venv").exists()


def test_the_newest_suitable_python_is_chosen(sandbox):
    sandbox.put_python("python3.11", "3.11")
    sandbox.put_python("python3.12", "3.12")
    assert sandbox.function("choose_python").stdout == "/opt/my 3.12/python\n"
    sandbox.put_python("python", "3.14")
    sandbox.put_python("python3", "3.13")
    assert sandbox.function("choose_python").stdout == "/opt/my 3.13/python\n"


def test_a_command_that_runs_no_python_is_passed_over(sandbox):
    sandbox.put("python3.13", "#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n")
    sandbox.put_python("python3", "3.11")
    assert sandbox.function("choose_python").stdout == "/opt/my 3.11/python\n"


def test_a_python_that_cannot_make_environments_is_chosen_only_for_uv(sandbox):
    sandbox.put_python("python3.12", "3.12", has_pip=False)
    refused = sandbox.function("choose_python")
    assert refused.returncode == 2 and "python3.12-venv" in refused.stderr and len(refused.stderr.splitlines()) == 1
    sandbox.put_python("python3.11", "3.11")
    assert sandbox.function("choose_python").stdout == "/opt/my 3.11/python\n"
    sandbox.put("uv", UV)
    assert sandbox.function("choose_python").stdout == "/opt/my 3.12/python\n"


def test_the_first_call_installs_and_the_second_does_not(sandbox):
    sandbox.put_real_python_and_uv()
    first = sandbox.quickstart()
    assert first.returncode == 0, first.stderr
    assert [call.split()[0] for call in sandbox.uv_calls()] == ["venv", "pip"]
    second = sandbox.quickstart("--config.x=1")
    assert second.stdout == "trained --config configs/quickstart.py --workdir runs/quickstart --config.x=1\n"
    assert not second.stderr and not sandbox.uv_calls()


ORDERS = "test test quickstart quickstart", "quickstart test quickstart test"


@pytest.mark.parametrize(
    "order, refused",
    [
        *((ORDERS[0], "nothing"), (ORDERS[1], "libtpu"), (ORDERS[0], "torch"), (ORDERS[1], "==")),
        *(slow(ORDERS[1], "nothing"), slow(ORDERS[0], "libtpu"), slow(ORDERS[1], "torch"), slow(ORDERS[0], "==")),
    ],
    ids="{}".format,
)
def test_both_commands_of_the_readme_share_one_set_up(sandbox, order, refused):
    """Whatever becomes of what is installed beside the lock, all of which has `==` in its name."""
    sandbox.put_real_python_and_uv()
    sandbox.put_tests()
    (sandbox.checkout / "pip.py").write_text(PIP)
    for command in order.split():
        done = getattr(sandbox, command)(UV_REFUSES=refused, PIP_STATUS="1")
        assert done.returncode == 0, done.stderr
        assert not (sandbox.checkout / ".venv" / "unfinished").exists(), command
    assert not any(word in done.stderr for word in ("Making", "Installing", "Looking for"))
    calls = sandbox.uv_calls()
    assert [call.split()[0] for call in calls].count("venv") == 1
    assert sum("-r requirements.lock" in call for call in calls) == 1
    assert sum("libtpu" in call for call in calls) == (2 if refused in ("libtpu", "==") else 1)


def test_an_accelerator_that_cannot_be_had_leaves_the_environment_whole(sandbox):
    sandbox.put_real_python_and_uv()
    sandbox.put_tests()
    (sandbox.checkout / "pip.py").write_text(PIP)
    sandbox.quickstart()
    failed = sandbox.function("set_up_accelerator tpu", UV_REFUSES="jax", PIP_STATUS="1")
    assert failed.returncode == 1 and failed.stderr.splitlines()[-1].startswith("error: could not install jax[tpu]==1")
    sandbox.uv_calls()
    assert sandbox.quickstart().stdout.startswith("trained") and not sandbox.uv_calls()


def test_pip_tells_how_far_it_is_and_keeps_its_warnings(sandbox):
    sandbox.put_real_python_and_uv()
    (sandbox.checkout / "pip.py").write_text(PIP)
    failed = sandbox.quickstart(UV_REFUSES="install", PIP_STATUS="1")
    assert failed.returncode == 1 and "WARNING" not in failed.stderr and not failed.stdout
    assert [line for line in failed.stderr.splitlines() if line.startswith("  ")] == [
        "  10 packages found",
        "  downloading jax-1-py3-none-any.whl (79.6 MB)",
        "  unpacking 15 packages",
    ]
    *said, end = failed.stderr.splitlines()
    assert "ERROR: No matching distribution found for chex==1" in said
    assert end == "error: could not install requirements.lock into .venv; the installer's message is above"
    done = sandbox.quickstart(UV_REFUSES="install")
    assert done.returncode == 0 and done.stdout.startswith("trained") and "unpacking 15 packages" in done.stderr


def test_a_new_lock_is_installed_into_the_environment_that_is_there(sandbox):
    sandbox.put_real_python_and_uv()
    sandbox.quickstart()
    (sandbox.checkout / ".venv" / "mine").touch()
    (sandbox.checkout / "requirements.lock").write_text("nothing==2\n")
    sandbox.uv_calls()
    assert sandbox.quickstart().returncode == 0
    (call,) = sandbox.uv_calls()
    assert call.endswith("-r requirements.lock") and (sandbox.checkout / ".venv" / "mine").exists()


@pytest.mark.parametrize("damage", ["unfinished", "no python", "empty"])
def test_a_half_made_environment_is_made_anew(sandbox, damage):
    sandbox.put_real_python_and_uv()
    sandbox.quickstart()
    venv = sandbox.checkout / ".venv"
    (venv / "leftover").touch()
    if damage == "unfinished":
        (venv / "unfinished").write_text("999999999\n")  # the process that wrote it is gone
    elif damage == "no python":
        (venv / "bin" / "python").unlink()
    else:
        shutil.rmtree(venv)
        venv.mkdir()
        (venv / "leftover").touch()
    sandbox.uv_calls()
    done = sandbox.quickstart()
    assert done.returncode == 0 and done.stdout.startswith("trained"), done.stderr
    assert [call.split()[0] for call in sandbox.uv_calls()] == ["venv", "pip"] and not (venv / "leftover").exists()
    sandbox.quickstart()
    assert not sandbox.uv_calls()


def test_two_scripts_started_at_once_set_up_once(sandbox):
    sandbox.put_real_python_and_uv()
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(sandbox.quickstart, COLUMNS="40") for _ in range(2)]
    assert [run.result().stdout.split()[:1] for run in runs] == [["trained"], ["trained"]]
    assert len(sandbox.uv_calls()) == 2


def test_a_failed_installation_says_so_and_is_tried_again(sandbox):
    sandbox.put_real_python_and_uv()
    (sandbox.checkout / "ensurepip.py").write_text("raise SystemExit('no pip either')")
    failed = sandbox.quickstart(UV_STATUS="1")
    assert failed.returncode == 1 and "trained" not in failed.stdout
    assert failed.stderr.splitlines()[-1].startswith("error: could not install requirements.lock")
    assert sandbox.quickstart().stdout.startswith("trained")


def test_a_caller_who_told_only_pip_where_packages_are_gets_pip(sandbox):
    sandbox.put("uv", UV)
    assert sandbox.function("prefer_uv").returncode == 0
    assert sandbox.function("prefer_uv", PIP_INDEX_URL="mirror").returncode == 1
    assert sandbox.function("prefer_uv", PIP_INDEX_URL="mirror", UV_DEFAULT_INDEX="mirror").returncode == 0


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["torch", "sympy", "Jinja2"], True),
        (["torch", "nvidia-cublas"], False),
        (["torch", "triton"], False),
        (["torch", "cuda-toolkit"], False),
        ([], False),
    ],
    ids=str,
)
def test_torch_is_taken_only_without_cuda(sandbox, names, taken):
    (sandbox.checkout / "report").write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in names]}))
    done = sandbox.function(f"venv_python='{sys.executable}'; brings_no_cuda < report")
    assert (done.returncode == 0) == taken


def test_the_check_hands_data_beside_the_checkout_to_the_tests(sandbox):
    shutil.copytree(CHECKOUT / ".ci", sandbox.checkout / ".ci")
    (sandbox.checkout / "launch" / "test.sh").write_text('echo "${ADASPEC_DATA-} ${ADASPEC_WEIGHTS-} $*"\n')
    environment = {"ADASPEC_DATA": "", "ADASPEC_WEIGHTS": ""}
    run = str(sandbox.checkout / ".ci" / "run")
    assert sandbox.bash(run, "-x", **environment).stdout.split() == ["-x"]
    data = sandbox.checkout.parent / "shared" / "data"
    data.mkdir(parents=True)
    assert sandbox.bash(run, **environment).stdout.strip() == str(data)


def test_an_accelerator_is_added_once_at_the_installed_jax_version(sandbox):
    sandbox.put("uv", UV)
    python = sandbox.checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for version, calls in [("0.10.2", 1), ("0.10.2", 0), ("0.11.0", 1)]:
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        done = sandbox.function("set_up_accelerator cuda13")
        assert done.returncode == 0, done.stderr
        asked = sandbox.uv_calls()
        assert len(asked) == calls
        assert all(call.endswith(f"-c constraints.txt jax[cuda13]=={version}") for call in asked)
    assert not (sandbox.checkout / ".venv" / "unfinished").exists()


def test_a_python_is_fetched_only_where_none_will_do(sandbox):
    sandbox.put("uv", UV)
    sandbox.put_python("python3", "3.10")
    assert sandbox.function("fetch_python", HOME=str(sandbox.bin)).returncode == 0
    assert sandbox.uv_calls() == ["python install --quiet 3.12"]
    sandbox.put_python("python3.11", "3.11")
    assert sandbox.function("fetch_python", HOME=str(sandbox.bin)).returncode == 0
    assert not sandbox.uv_calls()
