"""What a key means stands beside it in the source, and `--help` says it."""

import dataclasses
import inspect

from adaspec_jax.config import Chat, Draft, Experiment, Target
from adaspec_jax.config.bounds import one_of, positive
from adaspec_jax.config.remarks import keys_in_words, remarks_on


def test_a_remark_is_the_choices_and_the_comments_above_and_behind_a_field():
    draft = remarks_on(Draft)
    assert draft["fraction"] == "the paper's k"
    assert draft["scope"].startswith("one of global, shard, sequence; The quantile over the whole batch")
    assert "models/heads" in draft["kind"] and "sizes that follow" in draft["kind"]  # two lines above it
    assert draft["clip_norm"] == remarks_on(Target)["clip_norm"] == "0: off"  # of the class that it comes from
    assert remarks_on(Chat)["turns"].startswith("one of every, last, each; of the assistant's that are labels")
    assert "initializer_range" not in remarks_on(type(Target().architecture))


def test_every_key_is_said_once_with_its_value_and_its_remark_where_it_comes_first():
    lines = keys_in_words(Experiment())
    keys = [line for line in lines if line.startswith("  --config.")]
    assert len(keys) == len(set(keys)) and "  --config.qualifier.clip_norm=1.0" in keys
    assert lines[lines.index("  --config.target.clip_norm=1.0") + 1] == "      0: off"
    assert lines[lines.index("  --config.draft.clip_norm=1.0") + 1].startswith("  --config")
    assert "target.architecture: keys of the config.json of a GPTNeoX" in lines
    assert any(line.startswith("data: Where prompts and answers come from.") for line in lines)
    assert max(map(len, lines)) <= 120


def test_without_its_source_a_config_still_has_all_its_keys_and_choices(monkeypatch):
    def absent(_):
        raise OSError("could not get source code")

    @dataclasses.dataclass
    class Mine:
        kind: str = one_of("a", "b")
        size: int = positive(3)

    monkeypatch.setattr(inspect, "getsource", absent)
    assert keys_in_words(Mine()) == ["  --config.kind=a", "      one of a, b", "  --config.size=3"]
