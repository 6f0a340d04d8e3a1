"""The doctor: each reason alone makes the engines it concerns refuse, in one line that says how to mend it."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from adaspec_jax import serving
from adaspec_jax.serving import engines
from tests import tiny_pair
from tests.running import CHECKOUT, PATIENCE, command_line


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Target and draft that every engine serves."""
    root = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(root / name, tiny_pair.LLAMA | {"vocab_size": 288}, seed=seed)
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


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_pair_that_fits_gets_a_command_for_every_engine(doctor, pair):
    out, engines = doctor(pair)
    assert {name for name, engine in engines.items() if engine["can_serve"]} == {"transformers", "vLLM", "SGLang"}
    assert "vocabulary: 270 tokens; rows: 288 in both" in out
    words = shlex.split(engines["vLLM"]["command"])
    assert words[:3] == ["vllm", "serve", str(pair / "target")]
    settings = json.loads(words[words.index("--speculative-config") + 1])
    assert settings == {"method": "draft_model", "model": str(pair / "draft"), "num_speculative_tokens": 4}
    assert "--speculative-num-steps 4 --speculative-eagle-topk 1 --speculative-num-draft-tokens 5" in out
    assert "assistant_model=" in engines["transformers"]["command"]
    assert [len(engine["warnings"]) for engine in engines.values()] == [0, 1, 0]
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
        (reason,) = engine["reasons"]
        assert "320 in the target and 288 in the draft" in reason and "adaspec_jax.export" in reason
        assert not engine["can_serve"] and engine["command"] is None
        assert f"{name}: cannot serve: {reason}\n" in out


def test_a_vocabulary_with_fewer_rows_than_tokens_is_refused(doctor, pair):
    edit(pair / "draft" / "config.json", vocab_size=269)
    for engine in doctor(pair)[1].values():
        assert engine["reasons"] == ["the tokenizer needs 270 rows and the draft has 269; use its own tokenizer"]


def test_different_tokenizers_are_refused_with_their_first_difference(doctor, pair):
    other = tiny_pair.tokenizer([text.replace("apples", "bananas") for text in tiny_pair.TEXTS])
    other.save_pretrained(pair / "draft")
    for engine in doctor(pair)[1].values():
        (reason,) = engine["reasons"]
        assert reason.startswith("the tokenizers differ: token ") and "train a draft" in reason
    assert "use_heterogeneous_vocab" in doctor(pair)[1]["vLLM"]["reasons"][0]


def test_a_draft_without_a_tokenizer_is_a_warning(doctor, pair):
    for file in (pair / "draft").glob("tokenizer*"):
        file.unlink()
    engines = doctor(pair)[1]
    assert all(engine["can_serve"] and "without a tokenizer" in engine["warnings"][0] for engine in engines.values())


@pytest.mark.parametrize(
    ("family", "refusing"), [("codegen", {"vLLM", "SGLang"}), ("gpt_neox", {"SGLang"}), ("phi", set())]
)
def test_a_family_that_an_engine_does_not_have_is_named(doctor, pair, family, refusing):
    edit(pair / "draft" / "config.json", model_type=family)
    engines = doctor(pair)[1]
    assert {name for name, engine in engines.items() if not engine["can_serve"]} == refusing
    for name in refusing:
        (reason,) = engines[name]["reasons"]
        assert reason.startswith(f"{family} (the draft): ") and "; use another engine" in reason


def test_a_family_that_nobody_here_knows_is_a_warning(doctor, pair):
    edit(pair / "target" / "config.json", model_type="mistral")
    for name, engine in doctor(pair)[1].items():
        assert engine["can_serve"]
        assert f"mistral is not a family known here; look it up in {name}'s list of models" in engine["warnings"]


def test_a_draft_with_a_shorter_context_gets_the_flag_that_keeps_sglang_within_it(doctor, pair):
    edit(pair / "draft" / "config.json", max_position_embeddings=32)
    engine = doctor(pair)[1]["SGLang"]
    assert "--context-length 32" in engine["command"]
    assert "the target's 64 positions, past its own 32" in engine["warnings"][0]


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
    monkeypatch.setattr(engines, "hub_reachable", lambda: True)
    monkeypatch.setattr(data, "load_tokenizer", lambda name: load_tokenizer(directories / str(name).rpartition("/")[2]))
    pair = serving.read_pair("someone/target", "someone/draft")
    assert pair.draft_length == 4 and not any(verdict.reasons for verdict in serving.judge(pair).values())
    assert set(asked) == {"adapter_config.json", "config.json", "generation_config.json", "drafter.json"}


def test_a_hub_that_cannot_be_reached_is_one_line(directories, capsys, monkeypatch):
    monkeypatch.setattr(engines, "hub_reachable", lambda: False)
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
    monkeypatch.setattr(engines, "_json", lambda name, file: files.get(file))
    monkeypatch.setattr(engines, "find_local", lambda name: None)


def test_a_hub_names_files_are_judged_as_a_directorys_are(monkeypatch):
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
    of_the_hub(monkeypatch, {"config.json": plain, "drafter.json": {"kind": "model"}})
    assert engines.head_in("a/draft") is None and not engines._unseen("a/draft")
    of_the_hub(monkeypatch, {"config.json": plain, "drafter.json": {"kind": "hydra"}})
    assert engines.head_in("a/draft") == ("hydra", plain)
    of_the_hub(monkeypatch, {"config.json": plain | {"eagle_config": {}}})
    assert engines.head_in("a/draft")[0] == "eagle3"


def test_a_draft_that_only_tensors_names_would_show_to_be_a_head_is_named(pair, doctor, monkeypatch):
    out, _ = doctor(pair)
    assert "its tensors were not looked at" not in out
    (pair / "draft" / "model.safetensors").rename(pair / "draft" / "pytorch_model.bin")
    out, _ = doctor(pair)
    assert "its tensors were not looked at" in out
    of_the_hub(monkeypatch, {"config.json": {"model_type": "llama", "num_hidden_layers": 1}})
    assert engines._unseen("an/eagle")
    of_the_hub(monkeypatch, {"config.json": {"model_type": "llama", "num_hidden_layers": 2}})
    assert not engines._unseen("a/model")
