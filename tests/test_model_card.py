"""README.md and adaspec.json of an export: the hub reads them, names resolve, nothing in them is private."""

import json
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from adaspec_jax import serving
from adaspec_jax.pipeline.account import SCHEMA
from adaspec_jax.places import on_the_hub, without_places
from tests import tiny_pair
from tests.running import command_line

TINY = tiny_pair.LLAMA | {"vocab_size": 288, "head_dim": 32}
HUB, DATA = "someone/base-model", "someone/data"
ROW = {"alpha": 0.8142, "ci95": [0.80, 0.8249], "accepted": 8, "judged": 10, "drafted": 12, "rounds": 4, "prompts": 200}
ROW |= {"block_efficiency": 3.638, "expected_alpha": 0.7127, "teacher_forced_agreement": 0.8}
SETTINGS = {"target.init": HUB, "target.epochs": 0, "draft.init": "random", "draft.fraction": 0.4, "draft.lr": 5e-3}
SETTINGS |= {"target.architecture.model_type": "llama", "tokenizer.init": "/home/alice/secret/tokenizer"}
SETTINGS |= {"data.train": "/home/alice/secret/mine.jsonl", "data.mixture": ["~/secret/chat.jsonl*2", "gsm8k"]}


def report():
    where = {"task": "gsm8k", "split": "train", "kind": "hf", "name": f"hf:{DATA}:train", "rows": 7473}
    return {
        "task": "gsm8k",
        "drafts": {"base": ROW, "reference": ROW | {"alpha": 0.7992}, "draft": ROW},
        "paired": {"draft-reference": {"difference": 0.015, "ci95": [-0.004, 0.037], "p_value": 0.168}},
        "settings": {"evaluation": {"draft_length": 5, "temperature": 0.0, "max_new_tokens": 128, "num_prompts": 200}},
        "data": {"train": where, "evaluation": where | {"split": "test"}},
        "environment": {"python": "3.12.0", "versions": {"jax": "0.10.2"}},
        "speed": {"draft_length": 5},
    }


@pytest.fixture
def run(tmp_path):
    directory = tiny_pair.save_run(tmp_path / "runs" / "mine", target=TINY, draft=TINY, settings=SETTINGS)
    (directory / "report.json").write_text(json.dumps(report()))
    said = {"arguments": ["configs/quickstart.py", "--config.data.train=/home/alice/secret/mine.jsonl"]}
    (directory / "decisions.json").write_text(json.dumps({"command": said}))
    return directory


@pytest.fixture
def export(run, capsys, monkeypatch, tmp_path):
    def write(stage, *arguments, out="out"):
        """(card, adaspec.json)."""
        arguments = ["--workdir", run, "--stage", stage, "--out", tmp_path / out, *arguments]
        status, _, errors = command_line(capsys, monkeypatch, "export", *arguments)
        assert status == 0, errors
        account = json.loads((tmp_path / out / "adaspec.json").read_text())
        return ModelCard.load(tmp_path / out / "README.md"), account

    return write


def settings(run, **changes):
    file = run / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_hub_reads_the_metadata(export):
    card, _ = export("draft")
    said = card.data
    assert (said.library_name, said.pipeline_tag, said.license) == ("transformers", "text-generation", None)
    assert {"speculative-decoding", "draft-model", "adaspec", "llama"} <= set(said.tags)
    assert said.datasets == [DATA] and said.metrics == ["acceptance_rate"]
    (result,) = said.eval_results
    assert result.metric_value == 0.8142 and result.dataset_type == DATA
    assert said.base_model is None  # it was begun at random
    assert "add `license` to the metadata" in card.text


@pytest.mark.parametrize(
    ("stage", "changes", "base", "relation"),
    [
        ("draft", {"draft.init": "cut"}, HUB, "finetune"),
        ("draft", {"draft.init": "someone/small"}, "someone/small", "finetune"),
        ("reference", {"draft.init": "someone/small"}, "someone/small", "finetune"),
        ("draft", {"draft.init": "/home/alice/small"}, None, None),
        ("target", {"target.epochs": 2}, HUB, "finetune"),
        ("target", {}, HUB, None),  # its weights are the base's
    ],
)
def test_the_base_is_what_the_weights_went_on_from(export, run, stage, changes, base, relation):
    settings(run, **changes)
    if stage == "reference":
        (run / "draft").rename(run / "reference")
    said = export(stage)[0].data
    assert (said.base_model, said.base_model_relation if relation else None) == (base, relation)


def test_the_card_says_what_the_report_says(export):
    card, account = export("draft")
    assert "| AdaSPEC draft | 81.4 % | 80.0 % to 82.5 % | 3.64 | 71.3 % |" in card.text
    assert "Minus the reference: +1.5 points, 95 % interval [-0.4, +3.7], p = 0.168." in card.text
    assert "5 guesses a round, temperature 0," in card.text
    assert account["acceptance"]["drafts"]["draft"]["ci95"] == ROW["ci95"]
    assert account["schema"] == SCHEMA and account["environment"]["versions"] == {"jax": "0.10.2"}
    assert account["settings"]["draft.fraction"] == 0.4 and "| fraction | 0.4 |" in card.text


def test_a_run_that_measured_nothing_says_so(export, run):
    (run / "report.json").unlink()
    (run / "decisions.json").unlink()
    card, account = export("draft")
    assert account["acceptance"] is None and "Not measured in this run." in card.text and not card.data.metrics
    assert "Which config file it was is not recorded" in card.text


def test_nothing_of_it_is_private(export, tmp_path):
    export("draft")
    for file in ("README.md", "adaspec.json"):
        text = (tmp_path / "out" / file).read_text()
        assert not any(word in text for word in ("alice", "secret", str(tmp_path), str(Path.home()))), file
    account = json.loads((tmp_path / "out" / "adaspec.json").read_text())
    assert account["settings"]["data.train"] == "mine.jsonl"
    assert account["settings"]["data.mixture"] == ["chat.jsonl*2", "gsm8k"]
    assert account["command"] == ["configs/quickstart.py", "--config.data.train=mine.jsonl"]


def commands(card):
    return [line.strip() for line in card.text.splitlines() if line.startswith("    ")]


def test_names_are_the_hubs_or_lie_beside_the_directory(export, run, tmp_path, monkeypatch):
    def vllm(card):
        words = next(shlex.split(line) for line in commands(card) if line.startswith("vllm"))
        return words[2], json.loads(words[4])["model"]

    assert vllm(export("draft")[0]) == (HUB, "out")
    settings(run, **{"target.epochs": 1})
    card, _ = export("draft", out="second")
    monkeypatch.chdir(tmp_path)
    assert all(Path(name, "config.json").is_file() for name in vllm(card))  # from where the card says
    assert "in the directory that holds `second`" in card.text
    (tmp_path / "elsewhere").mkdir()
    card, _ = export("draft", out="elsewhere/third")
    assert vllm(card) == ("my-target", "third") and "--stage target --out my-target" in card.text
    assert vllm(export("draft", "--target_name", "someone/t", out="fourth")[0]) == ("someone/t", "fourth")


def test_a_targets_card_serves_it_alone(export):
    card, account = export("target")
    assert "vllm serve out" in commands(card) and account["acceptance"] is None
    assert any(line.startswith("ct2-transformers-converter --model out ") for line in commands(card))
    assert "draft-model" not in card.data.tags and "## Acceptance" not in card.text


def test_a_heads_card_names_its_target_and_no_relation():
    account = {
        "stage": "draft",
        "kind": "eagle3",
        "base_model": None,
        "acceptance": None,
        "data": None,
        "training": None,
    }
    account |= {"target": {"name": HUB, "fine_tuned": False, "model_type": "llama"}, "settings": {}, "command": None}
    account |= {"parameters": 5, "dtype": "float32", "adaspec_jax": "0"}
    card = ModelCard(serving.card(account, serving.Names("head", HUB, "", HUB), [], "python -m adaspec_jax.export"))
    assert card.data.base_model == HUB and getattr(card.data, "base_model_relation", None) is None
    assert card.data.library_name == "adaspec_jax" and "eagle3" in card.data.tags


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("/home/alice/x.jsonl", "x.jsonl"),
        ("C:\\Users\\alice\\x.jsonl", "x.jsonl"),
        ("--config.data.train=~/x.jsonl", "--config.data.train=x.jsonl"),
        ("('/home/alice/x.jsonl','gsm8k*2')", "('x.jsonl','gsm8k*2')"),
        ("stored in /home/alice/runs/teacher: 3.5 passes", "stored in teacher: 3.5 passes"),
        ("hf:a/b:train", "hf:a/b:train"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m"),
        ("48/2 = 24 tokens/s", "48/2 = 24 tokens/s"),
        ({"../a/b": [1, None, "./c/d"]}, {"b": [1, None, "d"]}),
    ],
)
def test_paths_become_their_last_part(given, left):
    assert without_places(given) == left


def test_a_directory_here_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert on_the_hub("runs/first") is None and without_places("runs/first") == "first"
    assert on_the_hub("gpt2") == "gpt2" and on_the_hub("stories260K-hf") is None and on_the_hub(HUB) == HUB
