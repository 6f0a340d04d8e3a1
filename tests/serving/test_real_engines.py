"""Real engines on an exported pair of the quickstart's shapes: their text is ours, token for token, and so is what they
count of their guesses.

ADASPEC_ENGINES names the folder of their environments, one each, made by

    python benchmarks/peer_environments.py DIR vllm openvino ctranslate2

Slow, and skipped where an environment is not there.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from adaspec_jax import data, export, models, serving
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from benchmarks.pairs import matched_pair
from benchmarks.peer_environments import PEERS
from tests.running import CHECKOUT

NEW, GUESSES, VOCABULARY = 40, 5, 1024


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Target and draft as `adaspec_jax.export` writes them, prompts, and the target's text."""
    root = tmp_path_factory.mktemp("engines")
    run, examples = root / "run", data.load_examples("word_problems", num=400)
    tokenizer = data.train_bpe([text for e in examples for text in (e.prompt, e.answer)], vocab_size=VOCABULARY)
    pair = dict(zip(("target", "draft"), matched_pair("quickstart", "quickstart_draft", vocab_size=1024), strict=True))
    for name, model in pair.items():
        models.save(model, run / name, tokenizer=tokenizer)
        (run / name / "stage.json").write_text('{"steps": 1}')
    tokenizer.save_pretrained(run / "tokenizer")
    (run / "config.json").write_text(json.dumps({"evaluation.draft_length": GUESSES}))
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()):
        for stage in ("target", "draft"):
            arguments = ["export", "--workdir", run, "--stage", stage, "--out", root / stage]
            patched.setattr(sys, "argv", [*map(str, arguments)])
            export.main()
    prompts = [tokenizer(example.prompt)["input_ids"] for example in examples[:4]]
    return root, prompts, [texts(pair["target"], prompt) for prompt in prompts]


def texts(target, prompt):
    """Prompt, the `NEW` tokens that are asked for, and as many more as a last round may guess."""
    context = Context(np.asarray([prompt]), np.asarray([len(prompt)]))
    knobs = {"max_new_tokens": NEW + GUESSES, "sampling": Sampling(temperature=0), "eos_id": -1}
    made = jax.device_get(generate(target, NoDraft(), context, jax.random.key(0), **knobs))
    return made.tokens_BS[0, : len(prompt) + NEW + GUESSES].tolist()


@pytest.fixture
def engine(exported, tmp_path):
    """`engine(name, mode)`: what it says of the prompts."""
    root, prompts, _ = exported
    environments = Path(os.environ.get("ADASPEC_ENGINES", "no such folder"))

    def run(name, *, draft):
        peer = PEERS[name]
        if why := peer.absent(environments):
            pytest.skip(f"ADASPEC_ENGINES has no {name}: {why}")
        places = {role: str(peer.converted(root / role, environments)) for role in ("target", "draft")}
        job = {"target": places["target"], "draft": places["draft"] if draft else None, "guesses": GUESSES}
        (tmp_path / "job.json").write_text(json.dumps(job | {"prompts": prompts, "new": NEW}))
        worker = CHECKOUT / "tests" / "serving" / "engine_worker.py"
        command = [peer.python(environments), worker, name, tmp_path / "job.json", tmp_path / "out.json"]
        done = subprocess.run(command, env=alone(peer, environments), capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((tmp_path / "out.json").read_text())

    return run


def alone(peer, environments):
    """The environment of a process that has nothing of ours or of other engines."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX", "XLA", "OMP", "PYTHON"))}
    first = {"PATH": f"{peer.python(environments).parent}:{os.environ['PATH']}"}
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"} | peer.variables(environments) | first


def counted(root, prompts, said):
    """(rounds, accepted guesses) of greedy chains along a text; its first token comes from reading the prompt."""
    draft = models.load(root / "draft")
    likeliest = jax.jit(lambda draft, tokens_BT: draft(tokens_BT)[0].argmax(-1))
    rounds, accepted = 0, 0
    for prompt, text in zip(prompts, said, strict=True):
        length, tokens = len(prompt) + 1, np.zeros((1, max(map(len, said))), int)
        while length < len(prompt) + NEW:
            tokens[0, :length] = text[:length]
            for place in range(length, length + GUESSES):
                tokens[0, place] = likeliest(draft, tokens)[0, place - 1]
            right = np.cumprod(tokens[0, length : length + GUESSES] == text[length : length + GUESSES])
            rounds, accepted = rounds + 1, accepted + int(right.sum())
            length += int(right.sum()) + 1
    return rounds, accepted


def asked_for(exported):
    _, prompts, said = exported
    return [text[len(prompt) : len(prompt) + NEW] for prompt, text in zip(prompts, said, strict=True)]


@pytest.mark.slow
def test_vllm_writes_our_text_and_accepts_what_we_accept(exported, engine):
    made = engine("vllm", draft=True)
    assert made["answers"] == asked_for(exported)
    rounds, accepted = counted(*exported)
    assert accepted > rounds, "a draft that is seldom right shows nothing"
    counts = made["counts"]
    print(rounds, accepted, counts)
    assert (counts["num_drafts"], counts["num_accepted_tokens"]) == (rounds, accepted)
    assert counts["num_draft_tokens"] == GUESSES * rounds


@pytest.mark.slow
@pytest.mark.parametrize("draft", [False, True])
def test_openvino_writes_our_text_and_accepts_nearly_what_we_accept(exported, engine, draft):
    made = engine("openvino", draft=draft)
    assert made["answers"] == asked_for(exported)
    if draft:
        rounds, accepted = counted(*exported)
        print(rounds, accepted, made["counts"])
        # Guesses past what was asked for are counted here, up to a whole round for each prompt, and not there.
        assert accepted - GUESSES * len(made["answers"]) <= made["counts"]["num_accepted_tokens"] <= accepted


@pytest.mark.slow
def test_ctranslate2_writes_our_text(exported, engine):
    assert engine("ctranslate2", draft=False)["answers"] == asked_for(exported)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "ctranslate2"])
def test_the_doctors_commands_run_as_they_are_pasted(exported, name, tmp_path):
    root, _, _ = exported
    peer, environments = PEERS[name], Path(os.environ.get("ADASPEC_ENGINES", "no such folder"))
    if why := peer.absent(environments):
        pytest.skip(f"ADASPEC_ENGINES has no {name}: {why}")
    verdicts = serving.judge(serving.read_pair(str(root / "target"), str(root / "draft")), "cpu")
    engine = {"openvino": "OpenVINO GenAI", "ctranslate2": "CTranslate2"}[name]
    command = verdicts[engine].alone or verdicts[engine].command
    shell = ["bash", "-e", "-c", command]
    done = subprocess.run(
        shell, cwd=tmp_path, env=alone(peer, environments), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-3000:]
