"""The scripts that train elsewhere: what --dry-run prints, what mistakes give, what they do with stand-in clouds."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.running import CHECKOUT, PATIENCE

LAUNCH = CHECKOUT / "launch"
AWKWARD = "a b'c\"d $HOME;*é.jsonl"
OVERRIDE = f"--config.data.train={AWKWARD}"
CONFIG = "configs/pythia_31m_1b4.py:gsm8k"
SCRIPTS = {
    "local.sh": ["--config", CONFIG],
    "mount_bucket.sh": ["--bucket", "gs://my-bucket", "--at", "/mnt/adaspec"],
    "tpu_vm.sh": [
        *("--name", "mine", "--project", "my-project", "--zone", "us-west4-a", "--bucket", "gs://my-bucket"),
        *("--accelerator-type", "v5litepod-8", "--config", CONFIG),
    ],
    "gcluster.sh": [
        *("--name", "mine", "--project", "my-project", "--location", "us-west4-a", "--bucket", "gs://my-bucket"),
        *("--cluster", "my-cluster", "--compute-type", "v6e-16", "--config", CONFIG, "--image-repo", "my-repo"),
    ],
    "slurm.sbatch": ["--config", CONFIG],
}
TRAINING = sorted(set(SCRIPTS) - {"mount_bucket.sh"})


def bash(script, *arguments, checkout=CHECKOUT, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "GCLUSTER_"))}
    return subprocess.run(
        ["bash", str(checkout / "launch" / script), *arguments],
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def dry_run(script, *arguments, **environment):
    """The commands it would run, split into words."""
    done = bash(script, *SCRIPTS[script], *arguments, "--dry-run", **environment)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line, comments=True) for line in done.stdout.splitlines()]


def remote_commands(commands):
    words = [word for command in commands for word in command]
    return [shlex.split(word.removeprefix("--command=")) for word in words if word.startswith("--command=")]


def one_line(done):
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_nothing_and_names_every_option(script):
    done = bash(script, "--help", PATH=os.defpath)
    assert done.returncode == 0 and not done.stderr and done.stdout.startswith("usage: ") and script in done.stdout
    source = (LAUNCH / script).read_text().replace("\\\n", "")
    valued, flags = re.search(r'parse_arguments "([^"]*)" "([^"]*)"', source).groups()
    assert all(f"--{option}" in done.stdout for option in [*valued.split(), *flags.split(), "dry-run"])


@pytest.mark.parametrize("script", ["setup.sh", "arguments.sh"])
def test_a_script_that_others_source_says_so(script):
    assert one_line(bash(script, "--help")).startswith(f"error: {script} is sourced")


def test_a_config_may_be_given_by_its_name():
    done = bash("local.sh", "--config", "stories:heads", "--dry-run")
    assert done.returncode == 0 and "--config stories:heads --workdir runs/stories_heads" in done.stdout
    assert "no config file storys" in one_line(bash("local.sh", "--config", "storys", "--dry-run"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--nonsense"], "unknown option --nonsense; see --help"),
        (["--nonsense=3"], "unknown option --nonsense; see --help"),
        (["nonsense"], 'unexpected argument "nonsense"; see --help'),
        (["--config.draft.lr"], "--config.draft.lr needs a value, as in --config.draft.lr=VALUE"),
        (["--dry-run=yes"], "--dry-run takes no value; see --help"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_status_2(script, wrong, says):
    assert one_line(bash(script, *SCRIPTS[script], *wrong)) == f"error: {says}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_option_is_named(script):
    first = SCRIPTS[script][0]
    assert f"{first} is missing" in one_line(bash(script, "--dry-run", *SCRIPTS[script][2:]))
    assert f"{first} needs a value" in one_line(bash(script, first))


@pytest.mark.parametrize("script", TRAINING)
def test_a_config_that_is_not_there_is_one_line(script):
    assert "configs/none.py" in one_line(bash(script, *SCRIPTS[script], "--config", "configs/none.py:x", "--dry-run"))


@pytest.mark.parametrize(
    ("script", "wrong", "says"),
    [
        ("local.sh", ["--gpu", "--tpu"], "exclude each other"),
        ("local.sh", ["--processes", "0"], "whole number from 1"),
        ("tpu_vm.sh", ["--accelerator-type", "v99-8"], "--runtime-version is missing"),
        ("tpu_vm.sh", ["--workdir", "/tmp"], "folder in the bucket"),
        ("tpu_vm.sh", ["--poll", "x"], "whole number from 1"),
        ("mount_bucket.sh", ["--bucket", "gs://a/b"], "without a folder"),
        ("slurm.sbatch", [], "sbatch launch/slurm.sbatch"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_first(script, wrong, says):
    assert says in one_line(bash(script, *SCRIPTS[script], *wrong))


def test_a_missing_tool_is_one_line(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for script, tool in [("tpu_vm.sh", "gcloud"), ("gcluster.sh", "gcluster")]:
        done = bash(script, *SCRIPTS[script], PATH=str(tmp_path))
        assert done.returncode == 2 and f"error: {tool} is not on PATH" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("script", TRAINING)
def test_awkward_values_survive_every_shell_on_the_way(script):
    commands = dry_run(script, OVERRIDE)
    commands += remote_commands(commands)  # read by a shell once more
    commands += [shlex.split(c[c.index("--command") + 1]) for c in commands if "--command" in c]
    assert any(OVERRIDE in command for command in commands)


@pytest.mark.parametrize("script", TRAINING)
def test_what_is_printed_can_be_pasted(script):
    done = bash(script, *SCRIPTS[script], OVERRIDE, "--dry-run")
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, timeout=PATIENCE).returncode == 0


def test_local_trains_in_the_environment_it_makes():
    cd, setup, train = dry_run("local.sh", "--gpu")
    assert cd == ["cd", str(CHECKOUT)]
    assert setup == ["bash", "-euc", "source launch/setup.sh; set_up; set_up_accelerator cuda13"]
    start = ".venv/bin/python -m adaspec_jax.train --config".split()
    assert train == [*start, CONFIG, "--workdir", "runs/pythia_31m_1b4_gsm8k"]
    assert len(dry_run("local.sh", "--install-only")) == 2
    assert "fetch_python; set_up; set_up_accelerator tpu" in dry_run("local.sh", "--fetch-python", "--tpu")[1][-1]


def test_local_processes_know_each_other():
    *_, first, second, wait = dry_run("local.sh", "--processes", "2", "--gpu", "--port", "99")
    assert wait == ["wait"] and first[-1] == second[-1] == "&"
    for number, command in enumerate([first, second]):
        places = {"JAX_COORDINATOR_ADDRESS=localhost:99", "JAX_NUM_PROCESSES=2", f"JAX_PROCESS_ID={number}"}
        assert places | {f"CUDA_VISIBLE_DEVICES={number}", "--config.distributed=auto"} <= set(command)


def test_tpu_vm_prints_its_whole_life():
    commands = dry_run("tpu_vm.sh", "--spot", "--workdir", "runs/one")
    verbs = [" ".join(command[2:5]) for command in commands if command[0] == "gcloud"]
    assert verbs[:2] == ["tpus queued-resources create", "tpus queued-resources describe"]
    assert verbs[2:] == ["tpus tpu-vm scp", *["tpus tpu-vm ssh"] * 4, "tpus queued-resources delete"]
    create = commands[0]
    assert {"--spot", "--node-id=mine", "--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite"} <= {
        *create
    }
    assert all({"--project=my-project", "--zone=us-west4-a", "--quiet"} <= set(c) for c in commands if c[0] == "gcloud")
    assert all("--worker=all" in c for c in commands if "tpu-vm" in c)
    *_, mount, train = remote_commands(commands)
    assert mount[-4:] == ["--bucket", "gs://my-bucket", "--at", "/mnt/adaspec"]
    assert "--config.distributed=auto" in train and "/mnt/adaspec/runs/one" in train
    assert "--force" in commands[-1]
    assert not any("delete" in command for command in dry_run("tpu_vm.sh", "--keep"))


@pytest.mark.parametrize(
    ("accelerator", "runtime", "topology"),
    [
        ("v5litepod-16", "v2-alpha-tpuv5-lite", "v5e:4x4"),
        ("v6e-8", "v2-alpha-tpuv6e", "v6e:2x4"),
        ("v5p-8", "v2-alpha-tpuv5", None),
        ("v4-8", "tpu-ubuntu2204-base", None),
    ],
)
def test_runtime_and_topology_follow_from_the_accelerator(accelerator, runtime, topology):
    done = bash("tpu_vm.sh", *SCRIPTS["tpu_vm.sh"], "--accelerator-type", accelerator, "--dry-run")
    assert f"--runtime-version={runtime}" in done.stdout
    plan = f"python -m adaspec_jax.plan --config {CONFIG}" + (f" --topology {topology}" if topology else "")
    assert done.stderr.rstrip().endswith(plan)


def test_gcluster_submits_one_job():
    *_, submit, clean = dry_run("gcluster.sh", "--spot", "--num-slices", "2", "--queue", "q", TMPDIR="/tmp/some where")
    assert submit[:5] == ["env", "GCLUSTER_IMAGE_REPO=my-repo", "gcluster", "job", "submit"]
    options = dict(zip(submit[5::2], submit[6::2], strict=True))
    command = options.pop("--command")
    assert command.startswith("cd /adaspec && exec bash launch/local.sh --tpu --config ")
    assert "--workdir /bucket/mine --config.distributed=auto" in command
    assert options == {
        **{"--name": "mine", "--project": "my-project", "--cluster": "my-cluster", "--location": "us-west4-a"},
        **{"--compute-type": "v6e-16", "--num-slices": "2", "--mount": "gs://my-bucket:/bucket:rw"},
        **{"--restarts": "20", "--grace-period": "2m", "--gke-nap-provisioning": "spot", "--queue": "q"},
        **{"--base-image": "python:3.12", "--build-context": "/tmp/some where/adaspec_jax.mine"},
    }
    assert clean[0] == "rm"
    (submit,) = dry_run("gcluster.sh", "--image", "my/image", "--compute-type", "nvidia-l4")
    assert submit[:3] == ["gcluster", "job", "submit"] and submit[-2:] == ["--image", "my/image"]
    assert "--gpu" in submit[submit.index("--command") + 1] and "distributed" not in " ".join(submit)


def test_slurm_needs_one_process_per_task():
    cd, setup, train, _, requeue = dry_run("slurm.sbatch")
    assert cd == ["cd", str(CHECKOUT)] and setup == "bash launch/local.sh --install-only --gpu".split()
    assert train[:5] == ["srun", "--kill-on-bad-exit=1", ".venv/bin/python", "-m", "adaspec_jax.train"]
    assert "--config.distributed=auto" in train and requeue[:2] == ["scontrol", "requeue"]
    directives = re.findall(r"^#SBATCH --(\S+)", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"requeue", "open-mode=append", "signal=B:USR1@180"} <= set(directives)


# States come from a file, one a look, the last one for good; training ends with the statuses in $ENDS, one a time.
@pytest.fixture(scope="module")
def skypilot():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())


def test_skypilot_recovers_on_spot_and_writes_to_the_bucket(skypilot):
    assert skypilot["resources"]["use_spot"] is True and skypilot["workdir"] == "."
    assert skypilot["file_mounts"] == {"/bucket": {"source": "${BUCKET}", "mode": "MOUNT_CACHED"}}
    assert skypilot["envs"]["BUCKET"] is None and (CHECKOUT / skypilot["envs"]["CONFIG"].split(":")[0]).is_file()


@pytest.mark.parametrize(
    ("accelerator", "nodes", "expected"), [("gpu", "1", []), ("tpu", "1", ["auto"]), ("gpu", "2", ["auto"])]
)
def test_skypilot_runs_what_local_sh_understands(skypilot, tmp_path, accelerator, nodes, expected):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "local.sh").write_text(
        f'echo "$JAX_COORDINATOR_ADDRESS $JAX_PROCESS_ID" >&2; exec bash {LAUNCH}/local.sh "$@" --dry-run\n'
    )
    variables = {key: value or "" for key, value in skypilot["envs"].items()} | {"ACCELERATOR": accelerator}
    variables |= {"OVERRIDES": "--config.seed=1 --config.draft.lr=1e-4"}
    variables |= {"SKYPILOT_NUM_NODES": nodes, "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    for part in ("setup", "run"):
        done = subprocess.run(
            ["bash", "-c", skypilot[part]],
            env={"PATH": os.environ["PATH"]} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
    train = shlex.split(done.stdout.splitlines()[-1])
    assert {"--config.seed=1", "--config.draft.lr=1e-4", "/bucket/adaspec"} <= set(train)
    assert [word.split("=")[1] for word in train if "distributed" in word] == expected
    assert done.stderr.strip() == ("10.0.0.1:7077 1" if nodes == "2" else "")


def test_the_floor_is_an_environment_of_its_own(tmp_path):
    for name in ("launch", "requirements.txt", "requirements-dev.txt"):
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, tmp_path / name)
    (tmp_path / "launch" / "setup.sh").open("a").write('set_up() { echo "$venv ${requirements[*]}"; exit; }\n')
    done = bash("test.sh", "--floor", checkout=tmp_path)
    assert done.stdout == ".venv-floor -r requirements.txt -r requirements-dev.txt -c launch/floor.txt\n"


def test_the_floor_pins_what_the_requirements_allow():
    floor = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (LAUNCH / "floor.txt").read_text(), re.MULTILINE))
    least = dict(re.findall(r"^([\w.-]+)>=([\w.]+)", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE))
    assert {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "transformers"} <= set(floor)
    for name in set(floor) & set(least):
        assert floor[name].startswith(least[name].removesuffix(".0")), name
