"""Files appear whole or not at all, whoever else writes them and whenever the process is killed; journals keep rows."""

import gzip
import hashlib
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaspec_jax import files
from adaspec_jax.errors import UserError
from tests.running import CHECKOUT

WRITER = """
import sys
from adaspec_jax import files
for n in range(10**9):
    files.write_text(sys.argv[1], f"{n % 10}" * 200_000)
    print(n, flush=True)
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_kill_at_any_moment_leaves_one_whole_file(tmp_path):
    path, moments = tmp_path / "x", random.Random(0)
    for _ in range(24):
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env=environment)
        writer.stdout.readline()
        time.sleep(0.01 * moments.random())
        writer.kill()
        writer.communicate()
        text = path.read_text()
        assert len(text) == 200_000 and len(set(text)) == 1
    assert all(name == "x" or (name.startswith(".x.") and name.endswith(".tmp")) for name in names(tmp_path))


def test_writers_of_one_file_that_share_a_process_id_neither_lose_nor_tear_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "x"

    def write(i):
        files.write_text(path, f"{i % 10}" * 50_000)
        text = path.read_text()
        return len(text) == 50_000 and len(set(text)) == 1

    with ThreadPoolExecutor(8) as writers:
        assert all(writers.map(write, range(200)))
    assert names(tmp_path) == ["x"]


def test_of_two_writers_at_once_the_last_to_end_stands(tmp_path):
    with files.replacing(tmp_path / "x") as one:
        one.write_text("one, begun")
        with files.replacing(tmp_path / "x") as other:
            other.write_text("other")
        assert (tmp_path / "x").read_text() == "other"
        one.write_text("one")
    assert (tmp_path / "x").read_text() == "one" and names(tmp_path) == ["x"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_file_is_readable_by_whoever_may_read_ordinary_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        with files.replacing(tmp_path / "deep" / "x") as temporary:
            temporary.unlink()
            temporary.touch(0o600)  # as safetensors makes it
        assert (tmp_path / "deep" / "x").stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit((tmp_path / "pipe").read_text)
        with open(tmp_path / "pipe", "wb"):  # so that the reader has its writer, whatever happens
            files.write_json(tmp_path / "pipe", {})
    assert read.result() == "{}\n" and (tmp_path / "pipe").is_fifo() and names(tmp_path) == ["pipe"]
    with pytest.raises(IsADirectoryError) as error:
        files.write_text(tmp_path, "x")
    assert error.value.filename == str(tmp_path)


def test_a_folder_appears_whole_and_the_first_one_stays(tmp_path):
    with pytest.raises(RuntimeError), files.making_folder(tmp_path / "f"):
        raise RuntimeError
    assert names(tmp_path) == []
    with files.making_folder(tmp_path / "f") as slow:
        (slow / "slow").touch()
        with files.making_folder(tmp_path / "f") as quick:
            (quick / "quick").touch()
            assert not (tmp_path / "f").exists()
    assert names(tmp_path) == ["f"] and names(tmp_path / "f") == ["quick"]


def test_json_comes_back_with_sorted_keys(tmp_path):
    files.write_json(tmp_path / "x.json", {"b": [1], "a": "\u00df"})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": "\\u00df",\n  "b": [\n    1\n  ]\n}\n'
    assert files.read_json(tmp_path / "x.json") == {"a": "\u00df", "b": [1]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
    ],
)
def test_json_that_cannot_be_read_is_one_line_with_the_file_and_the_mending(tmp_path, content, complaint):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        files.read_json(path, mend="write it again")
    said = str(error.value)
    assert said.startswith(f"{path} {complaint}") and said.endswith("; write it again") and "\n" not in said


@pytest.mark.parametrize("name", ["x", "x.gz"])  # whatever the name says
def test_a_digest_is_of_the_bytes_or_of_what_is_packed_in_them(tmp_path, name):
    path, content = tmp_path / name, b"text\n" * 9
    path.write_bytes(content)
    plain = hashlib.sha256(content).hexdigest()
    assert files.sha256(path) == files.sha256(path, unpacked=True) == plain
    packed = gzip.compress(content)
    path.write_bytes(packed)
    assert files.sha256(path, unpacked=True) == plain
    assert files.sha256(path) == hashlib.sha256(packed).hexdigest()


def test_a_journal_keeps_every_row_that_is_whole(tmp_path):
    def journal(about=None):
        return files.Journal(tmp_path / "j", about or {"sizes": (1, 2)}, what="run", mend="mend it")

    journal().add({"n": 1})
    again = journal()
    again.add({"n": 2})
    assert again.rows == [{"n": 1}, {"n": 2}] == journal().rows
    whole = (tmp_path / "j").read_text()
    for torn in ('{"n', "12", '{"n": 3}'):  # the last is whole but for its end of line
        (tmp_path / "j").write_text(whole + torn)
        if torn == "12":
            with pytest.raises(UserError, match="is no journal of a run; mend it"):
                journal()
            continue
        expected = [{"n": 1}, {"n": 2}, *([{"n": 3}] if torn.endswith("}") else [])]
        assert journal().rows == expected
        journal().add({"n": 4})
        assert journal().rows == [*expected, {"n": 4}]
    with pytest.raises(UserError, match=r"is of another run \(sizes\)"):
        journal({"sizes": [1, 3]})
    assert journal({"sizes": [1, 2], "asked since": 1}).rows == journal().rows  # when it was begun nobody could say
    with pytest.raises(UserError, match=r"is of another run \(everything\)"):
        journal({"asked since": 1})


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: ("fsync", name of a file or folder) and ("rename", old name)."""
    seen, fsync, replace, rename = [], os.fsync, os.replace, Path.rename

    def synced(number):
        seen.append(("fsync", Path(os.readlink(f"/proc/self/fd/{number}")).name))
        fsync(number)

    def replaced(old, new):
        seen.append(("rename", Path(old).name))
        replace(old, new)

    def renamed(self, new):
        seen.append(("rename", self.name))
        return rename(self, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux alone names open files so")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path, calls):
    """Else a power cut may leave the new name beside no content, as of a finished stage without weights."""
    files.write_text(tmp_path / "stage.json", "{}")
    (_, temporary), *others = calls
    assert calls == [("fsync", temporary), ("rename", temporary), ("fsync", tmp_path.name)] and others
    calls.clear()
    with files.making_folder(tmp_path / "store") as folder:
        (folder / "tokens.npy").write_text("1")
    made = folder.name
    assert calls == [("fsync", "tokens.npy"), ("fsync", made), ("rename", made), ("fsync", tmp_path.name)]


def test_what_killed_writers_began_is_taken_away_and_nothing_else(tmp_path):
    kept = [tmp_path / ".hidden.tmp", tmp_path / "a.tmp", tmp_path / "draft" / "x.json", tmp_path / ".x.123.tmp"]
    (tmp_path / "draft").mkdir()
    for path in kept:
        path.write_text("")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "draft" / "x.json") as temporary:
        begun = temporary.name
        raise KeyboardInterrupt
    (tmp_path / "draft" / begun).write_text("half")
    (tmp_path / begun.replace("x.json", "store")).mkdir()
    files.clear_beginnings(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "draft"]


def test_what_is_sealed_is_read_back_and_a_change_is_named(tmp_path):
    value = {"steps": 3, "loss": 0.1 + 0.2, "text": "é", "nested": {"b": [1.5e-8, None, True]}}
    files.write_sealed(tmp_path / "stage.json", value)
    read = files.read_sealed(tmp_path / "stage.json", mend="redo it")
    assert read.pop(files.SEAL) and read == value
    content = (tmp_path / "stage.json").read_bytes()
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 0x02
        (tmp_path / "stage.json").write_bytes(changed)
        try:
            found = files.read_sealed(tmp_path / "stage.json", mend="redo it")
        except UserError as error:
            assert str(tmp_path / "stage.json") in str(error) and "redo it" in str(error)
            continue
        assert {key: found.get(key) for key in value} == value  # a space, or the seal's own key
