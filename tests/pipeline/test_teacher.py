"""The teacher store in a run: the losses of recomputing, nothing written twice, nothing foreign trusted."""

import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from adaspec_jax import data, models, pipeline
from adaspec_jax.config import Evaluation, validate
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.pipeline import teacher, whole_run
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.reporting import read_metrics
from tests.house import file_arrows, module_of
from tests.pipeline.test_pipeline import FEW, experiment
from tests.running import CHECKOUT, PATIENCE, slow

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
STAGES = ("reference", "draft")
VOCAB = 320  # of the toy run


def short(choice):
    config = experiment()
    config.target.epochs, config.reference.epochs, config.draft.epochs = 1, 1.5, 1
    config.teacher, config.evaluation = choice, Evaluation(**FEW)
    return config


def curves(file):
    lines = read_metrics(file)
    return {name: np.array([line[name] for line in lines]) for name in lines[-1]}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stored") / "run"
    return directory, pipeline.run(short("hidden"), directory)


@pytest.fixture
def unfinished(stored, tmp_path):
    """A copy of the run before its draft stage."""
    shutil.copytree(stored[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "draft")
    (tmp_path / "run" / "report.json").unlink()
    return tmp_path / "run"


def test_the_curves_are_those_of_recomputing(stored, tmp_path):
    report = pipeline.run(short("recompute"), tmp_path)
    assert not (tmp_path / "teacher").exists() and report["teacher"]["choice"] == "recompute"
    assert stored[1]["teacher"]["choice"] == "hidden"
    for stage in STAGES:
        ours, theirs = (curves(folder / stage / "metrics.jsonl") for folder in (stored[0], tmp_path))
        for name in ("loss", "agreement", "grad_norm"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=f"{stage} {name}")
    np.testing.assert_allclose(ours["gap"], theirs["gap"], rtol=1e-3, atol=1e-5)


def test_what_is_stored_is_what_the_models_give(stored):
    directory, _ = stored
    tokenizer = data.load_tokenizer(directory / "tokenizer")
    target, reference = (models.load(directory / s).with_vocabulary(len(tokenizer)) for s in ("target", "reference"))
    examples = data.load_examples("word_problems", "train", num=64)
    rows, _ = data.encode(examples, tokenizer, max_length=256, eos_id=0)
    hidden = [np.load(file) for file in sorted((directory / "teacher").glob(f"{teacher.HIDDEN}-*.npy"))]
    kl = [np.load(file) for file in sorted((directory / "teacher").glob(f"{teacher.REFERENCE}-*.npy"))]
    assert len(np.concatenate(kl)) == sum(len(row.tokens) - row.prompt_length for row in rows)
    shortest = min(rows, key=lambda row: len(row.tokens))
    labels = slice(shortest.prompt_length - 1, len(shortest.tokens) - 1)
    count = labels.stop - labels.start
    tokens_1T = shortest.tokens[None]
    np.testing.assert_allclose(hidden[0][:count], target.features(tokens_1T)[0][0, labels], atol=1e-5)
    log_p, log_q = (np.asarray(m(tokens_1T)[0][0, labels], np.float64) for m in (target, reference))
    log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (log_p, log_q))
    np.testing.assert_allclose(kl[0][:count], (np.exp(log_p) * (log_p - log_q)).sum(-1), rtol=1e-4)


def test_all_tokens_kept_are_the_whole_law_and_few_say_what_they_change(stored, unfinished, tmp_path, capsys):
    shutil.rmtree(unfinished / "teacher")
    shutil.rmtree(unfinished / "reference")
    (unfinished / "decisions.json").unlink()
    config = short("top_k")
    config.teacher_top_k = VOCAB
    report = pipeline.run(config, unfinished)
    error = report["teacher"]["error"]
    assert error["kl_top_k"] == pytest.approx(error["kl_exact"], rel=1e-3) and error["selected_alike"] > 0.98
    for stage in STAGES:
        ours, theirs = (curves(folder / stage / "metrics.jsonl") for folder in (unfinished, stored[0]))
        for name in ("loss", "agreement"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-3, atol=2e-4, err_msg=f"{stage} {name}")
    for stage in ("reference", "draft", "teacher"):
        shutil.rmtree(unfinished / stage)
    (unfinished / "decisions.json").unlink()
    config.teacher_top_k = 4
    error = pipeline.run(config, unfinished)["teacher"]["error"]
    assert 0 < error["kl_top_k"] < 0.999 * error["kl_exact"] and 0.01 < error["tail_mass"] < 0.9
    assert 0.4 < error["selected_alike"] <= 1 and error["rows"] == 64
    assert "likeliest tokens hold" in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_likeliest_tokens_are_refused_where_a_divergence_needs_the_whole_law(tmp_path, stage):
    config = short("top_k")
    getattr(config, stage).divergence = "reverse_kl"
    with pytest.raises(UserError, match=f'{stage}.divergence is "reverse_kl", .* use teacher "hidden"'):
        validate(config)
    config = short("top_k")
    config.teacher_top_k = VOCAB + 1
    with pytest.raises(UserError, match="teacher_top_k is 321, and the vocabulary has 320"):
        pipeline.run(config, tmp_path)


def test_a_resumed_run_writes_only_what_is_torn_and_ends_with_the_same_draft(stored, unfinished, monkeypatch):
    torn = unfinished / "teacher" / f"{teacher.REFERENCE}-00000.npy"
    torn.write_bytes(torn.read_bytes()[:-1])
    written = []
    monkeypatch.setattr(
        data.TokenStore, "write", lambda self, *a, real=data.TokenStore.write: written.append(a[:2]) or real(self, *a)
    )
    pipeline.run(short("hidden"), unfinished)
    assert written == [(teacher.REFERENCE, 0)]
    same = [(folder / "draft" / "model.safetensors").read_bytes() for folder in (stored[0], unfinished)]
    assert same[0] == same[1]


SECOND_OF_TWO = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
jax.config.update("jax_default_matmul_precision", "highest")
sys.path.insert(0, {checkout!r})
from adaspec_jax.devices import sharding
from adaspec_jax.pipeline import teacher
from adaspec_jax.pipeline.teacher_choice import Asked
from adaspec_jax.pipeline.text import read_text
from adaspec_jax.training import Chunking
from adaspec_jax.training.divergences import forward_kl
from adaspec_jax.pipeline.workdir import Workdir
from tests.pipeline.test_teacher import short
config, workdir = short("hidden"), Workdir(sys.argv[3])
mesh, chunking = sharding.make_mesh(4, 1, 1), Chunking.for_backend("cpu", groups=4)
origins = {{"target": config.target, "draft": config.draft}}
text = read_text(config.data, config.tokenizer, origins, workdir=workdir, seed=config.seed)
models = {{
    name: sharding.shard(workdir.load(name).with_vocabulary(len(text.tokenizer)), mesh)
    for name in ("target", "reference")
}}
asked = Asked("hidden", 0, sampled_on_the_way=False)
rows = teacher.Rows(text, mesh, config.reference.batch_size, config.data.buckets)
where = {{"workdir": workdir, "chunking": chunking}}
store = teacher.open_store(asked, rows, models["target"], **where, passes=3)
shared = {{"base": models["reference"], "divergence": forward_kl, "fraction": 0.4}}
teacher.add_reference(asked, store, rows, **models, **shared, **where)
assert set(store.padded([0], 256)) == {{teacher.HIDDEN, teacher.REFERENCE}}
print("rows seen by", jax.process_index(), store.num_tokens)
"""


@pytest.mark.slow
def test_two_processes_write_the_store_of_one(stored, unfinished, tmp_path):
    shutil.rmtree(unfinished / "teacher")
    (unfinished / "decisions.json").unlink()
    script = tmp_path / "process.py"
    script.write_text(SECOND_OF_TWO.format(checkout=str(CHECKOUT)))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(number), str(unfinished)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "rows seen by" in out
    names = sorted(file.name for file in (stored[0] / "teacher").glob("*.npy"))
    assert names == sorted(file.name for file in (unfinished / "teacher").glob("*.npy"))
    for name in names:
        ours, theirs = (np.load(folder / "teacher" / name) for folder in (unfinished, stored[0]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_store_of_another_target_is_refused_and_rebuilt_once_deleted(unfinished):
    weights = models.load(unfinished / "target")
    models.save(
        models.CausalLM(
            {
                **weights.params,
                "final_norm": weights.params["embed"]
                and {name: leaf * 1.01 for name, leaf in weights.params["final_norm"].items()},
            },
            weights.config,
        ),
        unfinished / "target",
    )
    with pytest.raises(UserError, match="from other target weights; delete .*teacher"):
        pipeline.run(short("hidden"), unfinished)
    assert (unfinished / "reference" / "stage.json").is_file()
    shutil.rmtree(unfinished / "teacher")
    pipeline.run(short("hidden"), unfinished)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("models/decoder.py", True),
        ("models/families/gpt_neox.py", True),
        ("models/heads/of_a_kind_to_come.py", False),
        ("models/heads/parts/head.py", True),
        ("training/lessons.py", True),
        ("training/objectives/stored.py", True),
        ("data/token_store.py", True),
        ("pipeline/teacher.py", True),
        ("reporting/page.py", False),
        ("decoding/engine.py", False),
    ],
)
def test_a_store_depends_on_the_code_that_computes_it(tmp_path, file, counts):
    package = tmp_path / "adaspec_jax"
    shutil.copytree(CHECKOUT / "adaspec_jax", package, ignore=shutil.ignore_patterns("__pycache__"))
    before = teacher.code_sha256(package)
    assert before == teacher.code_sha256()  # wherever the package lies
    changed = package / file
    changed.parent.mkdir(exist_ok=True)
    changed.write_text((changed.read_text() if changed.exists() else "") + "\n# changed\n")
    assert (teacher.code_sha256(package) != before) == counts


def test_all_that_the_stored_values_import_is_code_that_the_store_depends_on():
    arrows, found = file_arrows(), set()
    following = {
        "adaspec_jax.training.objectives.stored",
        "adaspec_jax.models.causal_lm",
        "adaspec_jax.models.families",
    }
    while following:
        found |= following
        following = set().union(*(arrows[module] for module in following)) - found
    covered = {module_of(file) for place in teacher._COMPUTED_BY for file in (CHECKOUT / "adaspec_jax").glob(place)}
    said = {"adaspec_jax.errors", "adaspec_jax.voice", "adaspec_jax.data.token_classes"}  # by which nothing is computed
    said |= {"adaspec_jax.drafter_file", "adaspec_jax.files"}  # names of keys and files
    assert found - covered <= said | {"adaspec_jax", "adaspec_jax.places", "adaspec_jax.devices"}


def test_a_store_of_other_code_is_refused_in_one_line(unfinished):
    """As the stores of before are, whose digest was of less."""
    manifest = unfinished / "teacher" / "store.json"
    manifest.write_text(manifest.read_text().replace(teacher.code_sha256(), "0" * 64))
    with pytest.raises(UserError, match="computed from other code; delete .*teacher to have it written again") as error:
        pipeline.run(short("hidden"), unfinished)
    assert "\n" not in str(error.value)


def test_another_choice_for_a_finished_stage_is_refused_by_key(stored):
    with pytest.raises(UserError, match="made with teacher='hidden', not 'recompute'"):
        pipeline.run(short("recompute"), stored[0])


WEIGHED = [  # what is free on the disk and what a pass takes, what "auto" makes of it and says
    (10**15, 10.0, "hidden", "the text is gone through 4 times, which takes the target 40 s"),
    (10**15, 0.0, "recompute", "at every step"),
    (10, 10.0, "recompute", "would fill the disk"),
]


@pytest.fixture
def undecided(unfinished, monkeypatch):
    """`undecided(free, forward)` is the run before it chose, on such a machine."""
    shutil.rmtree(unfinished / "teacher")
    shutil.rmtree(unfinished / "reference")
    (unfinished / "decisions.json").unlink()

    def of(free, forward):
        monkeypatch.setattr(data, "free_bytes", lambda path: free)
        monkeypatch.setattr(teacher, "_seconds_of_a_pass", lambda *_: forward)
        return unfinished

    return of


@pytest.mark.parametrize("free, forward, choice, reason", WEIGHED)
def test_auto_weighs_measured_costs_and_asks_no_more(undecided, monkeypatch, free, forward, choice, reason):
    def fit_stage(*_, **__):
        raise Stopped("as far as its choice")

    unfinished = undecided(free, forward)
    monkeypatch.setattr(whole_run, "fit_stage", fit_stage)
    for _ in range(2):
        with pytest.raises(Stopped):
            pipeline.run(short("auto"), unfinished)
        decision = Workdir(unfinished).decision("teacher")
        assert decision["choice"] == choice and reason in decision["why"]
        assert (unfinished / "teacher").exists() == (choice == "hidden")
        monkeypatch.setattr(teacher, "decide", None)


@pytest.mark.parametrize("free, forward, choice, reason", [WEIGHED[0], *(slow(*case) for case in WEIGHED[1:])])
def test_auto_weighs_measured_costs_and_keeps_to_what_it_chose(undecided, monkeypatch, free, forward, choice, reason):
    unfinished = undecided(free, forward)
    report = pipeline.run(short("auto"), unfinished)
    assert report["teacher"]["choice"] == choice and reason in report["teacher"]["why"]
    assert (unfinished / "teacher").exists() == (choice == "hidden")
    shutil.rmtree(unfinished / "draft")
    monkeypatch.setattr(teacher, "decide", None)  # a resumed run asks no more
    assert pipeline.run(short("auto"), unfinished)["teacher"]["choice"] == choice


def test_an_explicit_choice_overrules_what_auto_chose_before_a_stage_began(unfinished, monkeypatch):
    shutil.rmtree(unfinished / "reference")
    monkeypatch.setattr(whole_run, "fit_stage", None)  # the run gets as far as its choice, and no further
    with pytest.raises(TypeError):
        pipeline.run(short("recompute"), unfinished)
    decision = Workdir(unfinished).decision("teacher")
    assert decision["choice"] == "recompute" and decision["asked"] == "recompute"


def test_a_disk_too_small_for_the_store_asked_for_is_said_before_anything_is_written(unfinished, monkeypatch):
    shutil.rmtree(unfinished / "teacher")
    (unfinished / "decisions.json").unlink()
    monkeypatch.setattr(data.token_store, "free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match="the teacher store takes .* MB"):
        pipeline.run(short("hidden"), unfinished)
    assert not (unfinished / "teacher").exists()


def test_runs_that_share_a_store_keep_what_their_references_say_apart(stored, tmp_path):
    found = {}
    for lr in (5e-3, 1e-3):
        directory = tmp_path / f"run_{lr}"
        for folder in ("tokenizer", "target"):
            shutil.copytree(stored[0] / folder, directory / folder)
        shutil.copy(stored[0] / "config.json", directory)
        config = short("hidden")
        config.teacher_store, config.reference.lr = str(tmp_path / "store"), lr
        pipeline.run(config, directory)
        files = {file.name.rpartition("-")[0] for file in (directory / "teacher").glob("*.npy")}
        assert files == {teacher.REFERENCE}
        found[lr] = np.load(directory / "teacher" / f"{teacher.REFERENCE}-00000.npy")
    assert {file.name.rpartition("-")[0] for file in (tmp_path / "store").glob("*.npy")} == {teacher.HIDDEN}
    assert not np.array_equal(*found.values())


def test_a_store_that_is_whole_needs_no_room(unfinished, monkeypatch):
    (unfinished / "decisions.json").unlink()
    monkeypatch.setattr(data.token_store, "free_bytes", lambda path: 10)
    monkeypatch.setattr(whole_run, "fit_stage", None)  # the run gets as far as its draft
    with pytest.raises(TypeError):
        pipeline.run(short("hidden"), unfinished)
