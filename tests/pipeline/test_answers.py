"""The target's own answers on disk belong to what they were sampled from."""

import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import answers

ORIGIN = {"target": "a", "temperature": 1.0}


def test_what_a_kill_left_of_the_first_file_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".origin.json.0.tmp").write_text('{"targ')
    answers._claim(tmp_path, ORIGIN)
    answers._write(tmp_path / "000000.npz", tokens=np.arange(6), lengths=np.arange(2))
    answers._claim(tmp_path, ORIGIN)
    found = answers._read(tmp_path / "000000.npz", ("tokens", "lengths"))
    np.testing.assert_array_equal(found["tokens"], np.arange(6))
    np.testing.assert_array_equal(found["lengths"], np.arange(2))
    with pytest.raises(UserError, match="sampled with another temperature"):
        answers._claim(tmp_path, ORIGIN | {"temperature": 0.0})


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_answers_without_a_word_of_their_origin_are_refused(tmp_path, damage):
    answers._claim(tmp_path, ORIGIN)
    answers._write(tmp_path / "000000.npz", tokens=np.arange(6), lengths=np.arange(2))
    if damage == "cut":
        (tmp_path / "origin.json").write_text('{"targ')
    else:
        (tmp_path / "origin.json").unlink()
    with pytest.raises(UserError, match=f"{tmp_path}.*; delete"):
        answers._claim(tmp_path, ORIGIN)


@pytest.mark.parametrize("place", [0.1, 0.4, 0.9])
def test_a_damaged_block_is_said_and_not_taken(tmp_path, place, capsys):
    file, names = tmp_path / "000003.npz", ("tokens", "lengths")
    assert not answers._is_whole(file, names) and capsys.readouterr().out == ""
    answers._write(file, tokens=np.arange(600), lengths=np.arange(2))
    assert answers._is_whole(file, names)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 0x10
    file.write_bytes(content)
    assert not answers._is_whole(file, names)
    assert f"{file} is damaged" in (said := capsys.readouterr().out) and "sampled again" in said
