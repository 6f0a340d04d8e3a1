"""The launch scripts against stand-ins of gcloud, srun and a program: what they do when machines go away.

The stand-ins answer from a list, and write down how they were called.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.running import CHECKOUT, PATIENCE
from tests.test_launch_scripts import CONFIG, LAUNCH, SCRIPTS, bash, one_line


class Cloud:
    """A small checkout, and stand-ins for the clouds' tools that write down their calls."""

    def __init__(self, root: Path):
        self.checkout, self.bin, self.file, self.tmp = root / "checkout", root / "bin", root / "calls", root / "tmp"
        shutil.copytree(LAUNCH, self.checkout / "launch")
        shutil.copytree(CHECKOUT / "configs", self.checkout / "configs")
        (self.checkout / "adaspec_jax").mkdir()
        (self.checkout / "requirements.lock").touch()
        self.bin.mkdir()
        self.tmp.mkdir()

    def put(self, name, script):
        (self.bin / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def environment(self, **environment):
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        files = {"CALLS": self.file, "TMPDIR": self.tmp, "STATES": self.tmp / "states"}
        return {"PATH": path} | {key: str(file) for key, file in files.items()} | environment

    def bash(self, script, *arguments, **environment):
        return bash(script, *arguments, checkout=self.checkout, **self.environment(**environment))

    def calls(self):
        return self.file.read_text().splitlines() if self.file.exists() else []

    def verbs(self):
        """The cloud's calls in a few words, looks at the state left out."""
        verbs = []
        for call in self.calls():
            words = call.split()
            if "describe" not in words:
                verbs.append("train" if "adaspec_jax.train" in call or "--workdir" in call else words[4])
        return verbs


def test_gcluster_hands_over_the_checkout_under_one_folder(cloud):
    cloud.put("gcluster", 'echo "gcluster $*" >> "$CALLS"; for last; do :; done; ls "$last/adaspec" >> "$CALLS"')
    done = cloud.bash("gcluster.sh", *SCRIPTS["gcluster.sh"])
    assert done.returncode == 0, done.stderr
    call, *files = cloud.calls()
    assert call.startswith("gcluster job submit") and {"launch", "configs", "adaspec_jax"} <= set(files)
    assert not list(cloud.tmp.glob("adaspec_jax.*"))


GCLOUD = r"""
echo "gcloud $*" >> "$CALLS"
case "$*" in
*describe*)
  head -n 1 "$STATES"
  [ "$(wc -l < "$STATES")" -lt 2 ] || { tail -n +2 "$STATES" > "$STATES.rest" && mv "$STATES.rest" "$STATES"; }
  ;;
*--workdir*)
  ends="$(cat "$STATES.ends" 2>/dev/null || echo "$ENDS")"
  case "$ends" in *' '*) echo "${ends#* }" > "$STATES.ends" ;; esac
  [ -z "${WAIT:-}" ] || { touch "$STATES.training"; until [ -e "$STATES.told" ]; do /bin/sleep 0.05; done; }
  exit "${ends%% *}"
  ;;
*queued-resources?create*) exit "${CREATE_STATUS:-0}" ;;
esac
"""
SET_UP = ["scp", "ssh", "ssh", "ssh", "train"]


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.put("gcloud", GCLOUD)
    cloud.put("sleep", "exec /bin/sleep 0.01")
    return cloud


def tpu_vm(cloud, states, ends, *arguments, **environment):
    Path(cloud.environment()["STATES"]).write_text("\n".join(states) + "\n")
    return cloud.bash("tpu_vm.sh", *SCRIPTS["tpu_vm.sh"], "--poll", "1", *arguments, ENDS=ends, **environment)


def test_tpu_vm_creates_trains_and_deletes(cloud):
    done = tpu_vm(cloud, ["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], "0")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["create", *SET_UP, "delete"]
    assert "gs://my-bucket/mine/report.html" in done.stderr and not list(cloud.tmp.glob("*.tgz"))


def test_tpu_vm_starts_anew_after_a_preemption(cloud):
    done = tpu_vm(cloud, ["", "ACTIVE", "SUSPENDING", "SUSPENDED", "", "ACTIVE"], "255 0", "--spot")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["create", *SET_UP, "delete", "create", *SET_UP, "delete"]


def test_tpu_vm_notices_a_preemption_that_shows_late(cloud):
    done = tpu_vm(cloud, ["ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "", "ACTIVE"], "1 0")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == [*SET_UP, "delete", "create", *SET_UP, "delete"]


def test_tpu_vm_takes_a_resource_that_is_there_and_replaces_a_dead_one(cloud):
    assert tpu_vm(cloud, ["FAILED", "", "ACTIVE"], "0").returncode == 0
    assert cloud.verbs() == ["delete", "create", *SET_UP, "delete"]


def test_tpu_vm_goes_on_after_a_lost_connection(cloud):
    assert tpu_vm(cloud, ["ACTIVE"], "255 0").returncode == 0
    assert cloud.verbs() == [*SET_UP, *SET_UP, "delete"]


@pytest.mark.parametrize("status", ["1", "2"])
def test_tpu_vm_does_not_repeat_a_failed_program(cloud, status):
    assert tpu_vm(cloud, ["ACTIVE"], status).returncode == int(status)
    assert cloud.verbs() == [*SET_UP, "delete"]


def test_tpu_vm_gives_up_on_what_never_becomes_active(cloud):
    done = tpu_vm(cloud, ["", "FAILED"], "0")
    assert done.returncode == 1 and "FAILED 4 times before it was ACTIVE" in done.stderr
    assert cloud.verbs()[-1] == "delete" and "train" not in cloud.verbs()
    cloud.file.unlink()
    assert "could not be created" in tpu_vm(cloud, [""], "0", CREATE_STATUS="1").stderr
    assert cloud.verbs() == ["create"] * 3 + ["delete"]


def test_tpu_vm_keeps_what_it_is_told_to_keep(cloud):
    done = tpu_vm(cloud, ["ACTIVE"], "1", "--keep")
    assert done.returncode == 1 and "delete" not in cloud.verbs()
    assert "gcloud compute tpus queued-resources delete mine" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_tpu_vm_deletes_what_costs_money(cloud, number):
    states = Path(cloud.environment()["STATES"])
    states.write_text("ACTIVE\n")
    process = subprocess.Popen(
        ["bash", cloud.checkout / "launch" / "tpu_vm.sh", *SCRIPTS["tpu_vm.sh"]],
        env=os.environ | cloud.environment(ENDS="0", WAIT="yes"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Jobs in the background ignore SIGINT, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + PATIENCE
    while not Path(f"{states}.training").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    Path(f"{states}.told").touch()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "deleting mine" in errors
    assert cloud.verbs() == [*SET_UP, "delete"]


def test_the_archive_leaves_environments_and_runs_behind(cloud):
    for folder in (".git", ".venv", ".venv-floor", "runs", ".jax_cache"):
        (cloud.checkout / folder).mkdir()
    cloud.put("gcloud", GCLOUD.replace("case", 'case "$*" in *scp*) tar -tzf "$5" >> "$CALLS" ;; esac\ncase', 1))
    assert tpu_vm(cloud, ["ACTIVE"], "0").returncode == 0
    packed = {line.split("/")[1] for line in cloud.calls() if line.startswith("./") and len(line) > 2}
    assert packed == {"launch", "configs", "adaspec_jax", "requirements.lock"}


def slurm(cloud, srun, **environment):
    cloud.put("srun", srun)
    cloud.put("scontrol", 'echo "scontrol $*" >> "$CALLS"')
    (cloud.checkout / "launch" / "local.sh").write_text('echo "local.sh $*" >> "$CALLS"\n')
    spool = cloud.tmp / "slurm_script"  # SLURM runs a copy, elsewhere
    shutil.copy(cloud.checkout / "launch" / "slurm.sbatch", spool)
    places = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(cloud.checkout)} | environment
    return subprocess.run(
        ["bash", spool, "--config", CONFIG],
        env=os.environ | cloud.environment(**places),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_slurm_sets_up_once_and_runs_on_every_task(cloud):
    done = slurm(cloud, 'echo "srun $*" >> "$CALLS"')
    assert done.returncode == 0, done.stderr
    setup, run = cloud.calls()
    assert setup == "local.sh --install-only --gpu" and run.startswith("srun --kill-on-bad-exit=1 .venv/bin/python -m")


def test_slurm_requeues_before_the_time_limit_and_waits_for_the_step(cloud):
    requeued = 'until grep -q requeue "$CALLS"; do /bin/sleep 0.05; done'
    done = slurm(cloud, f'kill -USR1 $PPID; {requeued}; echo "srun ended" >> "$CALLS"; exit 15')
    assert done.returncode == 15 and cloud.calls()[1:] == ["scontrol requeue 7", "srun ended"]


def test_slurm_passes_a_failure_on(cloud):
    assert slurm(cloud, "exit 3").returncode == 3 and "scontrol" not in " ".join(cloud.calls())


def test_slurm_outside_the_checkout_is_one_line(cloud):
    assert "call sbatch there" in one_line(slurm(cloud, "exit 0", SLURM_SUBMIT_DIR=str(cloud.tmp)))


LOCAL = """
use_environment() { :; }
fail() { echo "error: $2" >&2; exit "$1"; }
set_up() { :; }
venv_python={python}
"""


def local(cloud, program, *arguments):
    (cloud.checkout / "launch" / "setup.sh").write_text(LOCAL.replace("{python}", shlex.quote(sys.executable)))
    (cloud.checkout / "adaspec_jax" / "train.py").write_text(program)
    return cloud.bash("local.sh", "--config", CONFIG, *arguments, PYTHONPATH=str(cloud.checkout))


def test_local_processes_each_get_their_number(cloud):
    done = local(cloud, "import os; os.write(1, b'I am %s\\n' % os.environb[b'JAX_PROCESS_ID'])", "--processes", "3")
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == ["I am 0", "I am 1", "I am 2"]


def test_one_failed_local_process_ends_the_others(cloud):
    program = f"import os, sys, time\nif os.environ['JAX_PROCESS_ID'] == '1': sys.exit(3)\ntime.sleep({2 * PATIENCE})"
    assert local(cloud, program, "--processes", "2").returncode == 3


def test_mount_bucket_leaves_a_mounted_one_alone(cloud):
    cloud.put("mountpoint", "exit 0")
    cloud.put("gcsfuse", 'echo "gcsfuse $*" >> "$CALLS"')
    cloud.put("sudo", "exit 0")
    assert cloud.bash("mount_bucket.sh", *SCRIPTS["mount_bucket.sh"]).returncode == 0 and not cloud.calls()
    cloud.put("mountpoint", "exit 1")
    assert cloud.bash("mount_bucket.sh", *SCRIPTS["mount_bucket.sh"]).returncode == 0
    (call,) = cloud.calls()
    assert call.endswith("my-bucket /mnt/adaspec") and "--rename-dir-limit=" in call
