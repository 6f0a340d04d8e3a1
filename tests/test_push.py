"""`export --push`: the hub gets the very files of the export; whatever goes wrong is one line, and the export stays."""

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests import tiny_pair
from tests.running import command_line
from tests.stand_in_hub import StandIn

TINY = tiny_pair.LLAMA | {"vocab_size": 288}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_pair.save_run(tmp_path_factory.mktemp("push") / "run", target=TINY, draft=TINY)


@pytest.fixture
def hub(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.address)
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    yield stand_in
    stand_in.close()


@pytest.fixture
def export(run, capsys, monkeypatch, tmp_path):
    def write(*arguments):
        arguments = ["--workdir", run, "--stage", "draft", "--out", tmp_path / "out", *arguments]
        return command_line(capsys, monkeypatch, "export", *arguments)

    return write


def test_the_repository_holds_what_the_export_wrote(export, hub, tmp_path):
    status, out, errors = export("--push", "someone/my-draft", "--private")
    assert status == 0, errors
    assert out.splitlines()[-1] == f"pushed: {hub.address}/someone/my-draft"
    repository = hub.repositories["someone/my-draft"]
    assert repository["private"] and hub.tokens == {"Bearer hf_of_this_test"}
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {name: repository["files"][name] for name in written} == written and "README.md" in written
    assert "--draft someone/my-draft" in written["README.md"].decode()


def test_a_public_one_is_asked_for_in_so_many_words(export, hub):
    assert export("--push", "someone/open")[0] == 0
    assert not hub.repositories["someone/open"]["private"]


def test_a_name_that_is_taken_is_one_line_and_the_export_stays(export, hub, tmp_path):
    hub.repositories["someone/taken"] = {"private": False, "files": {}}
    status, _, errors = export("--push", "someone/taken")
    assert status == 2 and errors.count("\n") == 1 and "someone/taken is on the hub already" in errors
    assert (tmp_path / "out" / "model.safetensors").is_file() and not hub.repositories["someone/taken"]["files"]


@pytest.mark.parametrize(("code", "says"), [(401, "refuses the token"), (403, "refuses the token"), (500, "refused")])
def test_a_hub_that_refuses_is_one_line_and_the_export_stays(export, hub, tmp_path, code, says):
    hub.refuses = code
    status, _, errors = export("--push", "someone/new")
    assert status == 2 and errors.count("\n") == 1 and says in errors
    assert f"hf upload someone/new {tmp_path / 'out'}" in errors
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_network_it_is_one_line_and_the_export_stays(export, hub, tmp_path):
    hub.close()
    status, _, errors = export("--push", "someone/new")
    assert status == 2 and errors.count("\n") == 1 and "the hub cannot be reached" in errors
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--push", "my-draft"], "names no owner; give OWNER/my-draft"),
        (["--push", "a/b/c"], "is no name on the hub"),
        (["--push", "someone/has space"], "is no name on the hub"),
        (["--private"], "--private is of --push"),
    ],
)
def test_a_wrong_name_is_one_line_before_anything_is_written(export, hub, tmp_path, arguments, says):
    status, _, errors = export(*arguments)
    assert status == 2 and errors.count("\n") == 1 and says in errors
    assert not (tmp_path / "out").exists()


def test_without_a_token_it_is_one_line_before_anything_is_written(export, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    status, _, errors = export("--push", "someone/new")
    assert status == 2 and errors.count("\n") == 1 and "hf auth login" in errors
    assert not (tmp_path / "out").exists()
