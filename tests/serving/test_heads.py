"""Heads at the doors: who takes which beside which target, what an export writes for whom, and what is refused."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard

from adaspec_jax import models, serving
from adaspec_jax.models import heads
from tests import tiny_pair
from tests.running import CHECKOUT, PATIENCE, command_line

WIDE = {"hidden_size": 64, "num_hidden_layers": 7, "vocab_size": 288}
TARGETS = {"llama": tiny_pair.LLAMA | WIDE, "gpt_neox": tiny_pair.GPT_NEOX | WIDE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`runs(family, kind, **knobs)`: a workdir whose draft is a random head on its target."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(family, kind, **knobs):
        directory = root / "-".join(
            [family, kind, *(f"{name}{value}".replace(" ", "") for name, value in knobs.items())]
        )
        if directory in made:
            return directory
        target = tiny_pair.save(directory / "target", TARGETS[family]).with_vocabulary(tiny_pair.TOKENS)
        config = heads.made_for(kind, knobs, heads.Sizes.of(target.config))
        counts_V = np.arange(target.config.vocab_size)[::-1]
        head = heads.new(config, target, jax.random.key(0), counts_V)
        (directory / "target" / "stage.json").write_text("{}")
        from adaspec_jax.pipeline.workdir import Workdir

        fingerprint = Workdir(directory).weights_sha256("target")
        models.save_head(head, directory / "draft", fingerprint=fingerprint)
        (directory / "draft" / "stage.json").write_text("{}")
        tiny_pair.tokenizer().save_pretrained(directory / "tokenizer")
        (directory / "config.json").write_text(json.dumps({"evaluation.draft_length": 3}))
        made[directory] = head
        return directory

    return run


@pytest.fixture
def export(capsys, monkeypatch, tmp_path):
    def run(workdir, *arguments):
        arguments = ["--workdir", workdir, "--stage", "draft", "--out", tmp_path / "out", *arguments]
        return command_line(capsys, monkeypatch, "export", *arguments)

    return run


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    def run(target, draft):
        arguments = ["--target", target, "--draft", draft, "--json", tmp_path / "v.json"]
        status, out, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
        assert status == 0, errors
        return out, json.loads((tmp_path / "v.json").read_text())["engines"]

    return run


def can_serve(engines):
    return [name for name, engine in engines.items() if engine["can_serve"]]


@pytest.mark.parametrize(
    ("family", "kind", "who"),
    [
        ("llama", "eagle3", ["vLLM", "SGLang", "tpu-inference", "sglang-jax"]),
        ("llama", "eagle", ["vLLM", "SGLang"]),
        ("qwen2", "eagle3", ["vLLM", "SGLang"]),
        ("qwen3", "eagle3", ["vLLM", "SGLang", "sglang-jax"]),
        ("phi", "eagle", ["vLLM"]),
        ("mistral", "eagle3", ["vLLM", "SGLang"]),
        ("granite", "eagle", []),
        ("gemma3_text", "eagle3", ["SGLang"]),
        ("gemma2", "medusa", ["vLLM"]),
        ("ministral", "medusa", []),
        ("gpt_neox", "medusa", ["vLLM"]),
        ("gpt2", "medusa", ["vLLM"]),
        ("gpt_neox", "eagle3", []),
        ("codegen", "medusa", []),
        ("llama", "hydra", []),
        ("llama", "dflash", ["vLLM"]),
        ("gpt_neox", "dflash", []),
        ("qwen3", "p_eagle", ["vLLM"]),
    ],
)
def test_who_takes_which_head_beside_which_target(family, kind, who):
    assert serving.takers(kind, family) == who
    warnings = serving.warnings_for(kind, family)
    assert len(warnings) == (not who) and not any("\n" in line for line in warnings)


def test_a_head_that_no_server_takes_is_said_before_it_is_trained_with_what_is_taken():
    (line,) = serving.warnings_for("eagle3", "gpt_neox")
    assert "embed_in" in line and line.endswith("beside gpt_neox: medusa (vLLM)")
    (line,) = serving.warnings_for("hydra_plus", "llama")
    assert "decoded here alone" in line and "eagle3 (vLLM, SGLang, tpu-inference, sglang-jax)" in line


def test_the_doctor_gives_the_commands_of_all_that_take_a_head(runs, export, doctor, tmp_path):
    run = runs("llama", "eagle3", vocabulary=100)
    status, out, errors = export(run)
    assert status == 0, errors
    assert out.splitlines()[1] == "vLLM: can serve" and "tpu-inference: can serve" in out
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "adaspec_jax" and "eagle3" in card.data.tags
    assert '"method": "eagle3", "model": "out"' in card.text and "### sglang-jax: not served" in card.text
    assert json.loads((tmp_path / "out" / "adaspec.json").read_text())["kind"] == "eagle3"
    out, engines = doctor(run / "target", tmp_path / "out")
    assert "a head of the kind eagle3" in out
    assert '"method": "eagle3"' in engines["vLLM"]["command"] and '"num_speculative_tokens": 5' in out
    # Exported for vLLM, whose class it names.
    assert can_serve(engines) == ["vLLM", "tpu-inference"]
    for name in ("SGLang", "sglang-jax"):
        (reason,) = engines[name]["reasons"]
        assert "--for sglang" in reason


def test_an_export_for_sglang_names_its_class_and_numbers_layers_as_it_does(runs, export, doctor, tmp_path):
    run = runs("llama", "eagle3", taps=(0, 2, 5))
    before = json.loads((run / "draft" / "config.json").read_text())
    assert before["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [1, 3, 6]
    assert export(run, "--for", "sglang")[0] == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [0, 2, 5]
    assert config["architectures"] == ["LlamaForCausalLMEagle3"]
    _, engines = doctor(run / "target", tmp_path / "out")
    assert can_serve(engines) == ["SGLang", "sglang-jax"]
    assert "EAGLE3" in engines["SGLang"]["command"] and "sgl_jax.launch_server" in engines["sglang-jax"]["command"]
    assert "numbers layers as SGLang and sglang-jax do" in engines["vLLM"]["reasons"][0]
    assert any("whatever is there" in reason for reason in engines["tpu-inference"]["reasons"])
    # drafter.json goes on meaning the layers that it was trained on.
    assert models.load_head(tmp_path / "out", models.load(run / "target")).config.layers == (0, 2, 5)


@pytest.mark.parametrize("taps", [(0, 2, 5), (1, 2, 3)])  # the latter are every server's own
@pytest.mark.parametrize("reader", ["vllm", "sglang"])
def test_an_exported_head_is_read_by_what_servers_read_alone(taps, reader, runs, export, tmp_path):
    run = runs("llama", "eagle3", taps=taps)
    assert export(run, "--for", reader)[0] == 0
    (tmp_path / "out" / "drafter.json").unlink()
    assert models.load_head(tmp_path / "out", models.load(run / "target")).config.layers == taps


def test_an_export_writes_every_file_once_and_drafter_json_last(runs, export, monkeypatch):
    from adaspec_jax.models.heads.parts import files

    run, written, write_json = runs("llama", "eagle3"), [], files.write_json
    monkeypatch.setattr(files, "write_json", lambda file, value: (written.append(file.name), write_json(file, value)))
    assert export(run, "--for", "sglang")[0] == 0
    assert written == ["config.json", "drafter.json"]


def test_an_export_that_no_server_of_its_layout_takes_is_refused_with_their_reasons(runs, export, tmp_path):
    status, out, errors = export(runs("llama", "eagle3", norm_output=True), "--for", "sglang")
    assert status == 2 and errors.count("\n") == 1 and '"norm_output" is set' in errors and not out
    status, _, errors = export(runs("llama", "eagle3", taps=(0, 3, 6)), "--for", "sglang")
    assert status == 2 and "names the layer 6, and it reads none above 5 of 7: give the head other taps" in errors
    assert not (tmp_path / "out").exists()
    assert export(runs("llama", "eagle3", taps=(0, 3, 6)), "--for", "vllm")[0] == 0


def test_medusa_is_asked_for_no_more_guesses_than_it_has_heads(runs, doctor):
    run = runs("llama", "medusa", heads=4)
    _, engines = doctor(run / "target", run / "draft")
    assert '"num_speculative_tokens": 4' in engines["vLLM"]["command"]
    old, target = {"medusa_num_heads": 3, "hidden_size": 64}, TARGETS["llama"]
    for length, asked in ((5, 3), (2, 2)):
        command = serving.judge_head("t", target, "d", "medusa", old, length)["vLLM"].command
        assert f'"num_speculative_tokens": {asked}' in command


def test_a_block_is_asked_for_whole(runs, export, doctor, tmp_path):
    """It was trained so: with fewer slots it guesses otherwise."""
    run = runs("llama", "dflash", block=8, depth=2)
    assert export(run, "--for", "vllm")[0] == 0
    out, engines = doctor(run / "target", tmp_path / "out")
    assert can_serve(engines) == ["vLLM"] and '"method": "dflash"' in engines["vLLM"]["command"]
    assert '"num_speculative_tokens": 7' in out
    (tmp_path / "out" / "drafter.json").unlink()
    read = models.load_head(tmp_path / "out", models.load(run / "target")).config
    assert (read.name, read.block, read.depth, read.mask_token) == ("dflash", 8, 2, 287)


def published(runs, kind, **changes):
    """config.json of a head, as it might lie elsewhere."""
    config = json.loads((runs("llama", kind) / "draft" / "config.json").read_text()) | changes
    return {key: value for key, value in config.items() if value is not None}


def verdicts(kind, config, target=TARGETS["llama"]):
    return serving.judge_head("t", target, "d", kind, config, 5)


@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_a_published_head_may_have_a_plain_llamas_class_in_vllm(kind, runs):
    found = verdicts(kind, published(runs, kind, architectures=["LlamaForCausalLM"]))
    assert not found["vLLM"].reasons and "in another's file change the name" in found["SGLang"].reasons[0]
    found = verdicts(kind, published(runs, kind, architectures=["LlamaForCausalLMEagle"]))
    assert "the class LlamaForCausalLMEagle" in found["vLLM"].reasons[0]


def test_a_head_of_the_speculators_library_is_read_as_vllm_reads_it(runs):
    said = {"speculators_model_type": "eagle3", "architectures": ["Eagle3Speculator"], "draft_vocab_size": 100}
    said |= {"transformer_layer_config": published(runs, "eagle3", architectures=None, eagle_config=None)}
    found = verdicts("eagle3", said | {"eagle_aux_hidden_state_layer_ids": [2, 3, 4]})
    assert not found["vLLM"].reasons and not found["tpu-inference"].reasons
    assert any('"norm_before_residual" is set' in reason for reason in found["SGLang"].reasons)
    found = verdicts("eagle3", said | {"eagle_aux_hidden_state_layer_ids": [1, 3, 8]})
    assert "names the layer 8, and it reads none above 7" in found["vLLM"].reasons[0]
    assert "names the layers [1, 3, 8]" in found["tpu-inference"].reasons[0]
    few = TARGETS["llama"] | {"num_hidden_layers": 5}
    assert not verdicts("eagle3", said | {"eagle_aux_hidden_state_layer_ids": [1, 2, 3]}, few)["vLLM"].reasons
    assert "names no layers" in verdicts("eagle3", said, few)["vLLM"].reasons[0]
    said["transformer_layer_config"] |= {"hidden_size": 32}
    assert "hidden_size is 32 in the head" in verdicts("eagle3", said)["vLLM"].reasons[0]


def test_of_kinds_that_are_not_known_here_nothing_is_claimed(runs, doctor, tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3DSparkDraftModel"], "model_type": "qwen3"}')
    out, engines = doctor(runs("llama", "eagle") / "target", tmp_path)
    assert "decoded here alone" not in out and not can_serve(engines)
    assert "heads of the kind Qwen3DSparkDraftModel are not known here" in engines["vLLM"]["reasons"][0]
    run = runs("llama", "hydra")
    out, engines = doctor(run / "target", run / "draft")
    assert "decoded here alone" in out and "it takes no hydra heads" in engines["vLLM"]["reasons"][0]


def test_an_exported_head_guesses_no_row_without_a_token(runs, export, tmp_path):
    run = runs("gpt_neox", "medusa")
    assert export(run)[0] == 0
    target = models.load(run / "target")
    before, after = (models.load_head(place, target) for place in (run / "draft", tmp_path / "out"))
    for i in range(4):
        old, new = (np.asarray(head.params[f"head_{i}"]["head"]["kernel"]) for head in (before, after))
        np.testing.assert_array_equal(old[:, : tiny_pair.TOKENS], new[:, : tiny_pair.TOKENS])
        rest = new[:, tiny_pair.TOKENS :]
        np.testing.assert_allclose(
            rest, np.broadcast_to(old[:, : tiny_pair.TOKENS].mean(1)[:, None], rest.shape), atol=1e-6
        )


@pytest.mark.parametrize(
    ("family", "kind", "reader", "says"),
    [
        ("gpt_neox", "eagle3", None, "no server takes eagle3 beside a gpt_neox target"),
        ("llama", "hydra", None, "no server takes a head of the kind hydra"),
        ("llama", "medusa", "sglang", "SGLang and sglang-jax take no medusa beside a llama target; vLLM does"),
    ],
)
def test_an_export_that_no_server_takes_is_one_line_and_writes_nothing(
    family, kind, reader, says, runs, export, tmp_path
):
    run = runs(family, kind)
    status, out, errors = export(run, *(["--for", reader] if reader else []))
    assert status == 2 and errors.count("\n") == 1 and says in errors and "--for adaspec_jax" in errors
    assert not out and not (tmp_path / "out").exists()
    status, out, errors = export(run, "--for", "adaspec_jax")
    assert status == 0, errors
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (run / "draft" / "model.safetensors").read_bytes()
    assert "can serve" not in out if kind != "medusa" else "vLLM: can serve" in out


def test_a_reader_of_heads_is_refused_for_a_whole_model(runs, export, capsys, monkeypatch, tmp_path):
    run = runs("llama", "eagle")
    arguments = ["--workdir", run, "--stage", "target", "--out", tmp_path / "out", "--for", "sglang"]
    status, _, errors = command_line(capsys, monkeypatch, "export", *arguments)
    assert status == 2 and "--for sglang is for heads" in errors


def test_a_head_on_another_target_is_refused_by_the_export(runs, export, tmp_path):
    run = runs("llama", "eagle", steps=2)
    tiny_pair.save(run / "target", TARGETS["llama"], seed=5)
    status, _, errors = export(run)
    assert status == 2 and errors.count("\n") == 1 and "belongs to another target: weights" in errors


def test_what_a_server_does_not_know_of_a_head_is_named(runs, doctor):
    run = runs("llama", "eagle3", norm_output=True)
    _, engines = doctor(run / "target", run / "draft")
    assert can_serve(engines) == ["vLLM"]
    assert any('"norm_output" is set' in reason for reason in engines["SGLang"]["reasons"])


def test_sizes_of_another_target_and_of_attention_on_cpus_are_named(runs, doctor, tmp_path):
    run = runs("llama", "eagle")
    _, engines = doctor(run / "target", run / "draft")
    assert engines["vLLM"]["devices"]["cpu"]["can_serve"]  # head_dim is 32
    tiny_pair.save(tmp_path / "other", tiny_pair.LLAMA | {"vocab_size": 288})
    _, engines = doctor(tmp_path / "other", run / "draft")
    assert "hidden_size is 64 in the head and 16 in the target" in engines["vLLM"]["reasons"][0]
    config = json.loads((run / "draft" / "config.json").read_text())
    target = json.loads((run / "target" / "config.json").read_text())
    verdict = serving.judge_head("t", target, "d", "eagle", config | {"head_dim": 16}, 5)["vLLM"]
    assert "the head's heads have 16 features" in verdict.on["cpu"][0] and not verdict.on["gpu"]
    phi = target | {"model_type": "phi"}
    for kind, noted in (("eagle", True), ("eagle3", False)):
        said = verdicts(kind, published(runs, kind), phi)["vLLM"].warnings
        assert any("bias of Phi's output matrix" in warning for warning in said) == noted


def test_plain_drafts_are_told_of_tpu_servers(doctor, tmp_path):
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(tmp_path / name, tiny_pair.LLAMA | {"vocab_size": 288}, seed=seed)
    out, _ = doctor(tmp_path / "target", tmp_path / "draft")
    assert "TPU servers (tpu-inference, sglang-jax) take no plain draft" in out


def test_the_check_of_a_head_does_not_import_jax(runs):
    run = runs("llama", "eagle")
    program = "from adaspec_jax import doctor; doctor.main(); import sys; assert 'jax' not in sys.modules"
    command = [sys.executable, "-c", program, "--target", run / "target", "--draft", run / "draft"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
