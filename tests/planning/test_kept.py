"""What a compiler said is asked for once: in a process, and where there is a folder, ever."""

import json

import jax
import jax.numpy as jnp
import pytest

from adaspec_jax import planning
from adaspec_jax.devices import ahead_of_time, sharding, topologies
from adaspec_jax.planning import slices
from adaspec_jax.planning.kept import Kept, Sized, fingerprint
from adaspec_jax.planning.slices import Slice
from tests.running import command_line


@pytest.fixture
def compiled(monkeypatch):
    """The programs that were compiled, as they are."""
    asked, compile_ = [], slices.compiled_or_needed

    def counted(lowering):
        asked.append(lowering)
        return compile_(lowering)

    monkeypatch.setattr(slices, "compiled_or_needed", counted)
    return asked


def on(kept, *, effort=0.0):
    here = topologies.find("cpu")
    return Slice(here, sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), None, effort=effort, kept=kept)


def asked(kept, *, size=3, effort=0.0):
    x = jax.ShapeDtypeStruct((size, size), jnp.float32)
    return on(kept, effort=effort).program(jax.jit(lambda x: x @ x), x, more=0, rounds=1)[1]


def test_the_same_program_is_compiled_once_and_another_anew(tmp_path, compiled):
    first = asked(Kept(tmp_path))
    assert first.parts.arguments == 9 * 4 and first.size == first.parts.total and first.collectives == 0
    again = asked(Kept(tmp_path))
    assert (again, len(compiled)) == (first, 1)
    assert asked(Kept(tmp_path), size=4) != first
    asked(Kept(tmp_path), effort=-1.0)
    asked(Kept())
    assert len(compiled) == 4


def test_without_a_folder_a_process_remembers_for_itself(compiled):
    kept = Kept()
    assert asked(kept) == asked(kept) and len(compiled) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 3}', '{"size": 1, "parts": {"no": 1}, "collectives": null}'])
def test_what_is_damaged_there_is_asked_for_anew(tmp_path, compiled, text):
    whole = asked(Kept(tmp_path))
    [file] = tmp_path.iterdir()
    file.write_text(text)
    assert asked(Kept(tmp_path)) == whole and len(compiled) == 2
    assert json.loads(file.read_text())["size"] == whole.size


def test_a_folder_that_cannot_be_written_is_said_once_and_nothing_is_lost(tmp_path, compiled):
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "below")
    assert asked(kept) == asked(kept) and len(compiled) == 1
    assert kept.unwritable.startswith(str(tmp_path / "file"))


def test_a_program_that_does_not_fit_is_kept_as_such(tmp_path):
    Kept(tmp_path).keep("key", Sized(7))
    assert Kept(tmp_path).find("key") == Sized(7) and Kept(tmp_path).find("other") is None


def test_a_fingerprint_is_of_the_program_and_of_all_its_compiler_goes_by(monkeypatch):
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])

    def lowering(scale):
        x = jax.ShapeDtypeStruct((3,), jnp.float32)
        return ahead_of_time.lowered(jax.jit(lambda x: scale * x), x, mesh=mesh, backend="cpu").lowering

    here, other = topologies.Topology("cpu", [], "cpu", None), topologies.Topology("v5e:1x1", [], "tpu", None)
    how = {"effort": 0.0, "rounds": 2}
    same = {fingerprint(lowering(2.0), here, **how) for _ in range(2)}
    assert len(same) == 1
    others = [(lowering(3.0), here, how), (lowering(2.0), other, how)]
    others += [(lowering(2.0), here, how | {"effort": -1.0}), (lowering(2.0), here, how | {"rounds": 3})]
    known = same | {fingerprint(*each[:2], **each[2]) for each in others}
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_some_flag=false")
    assert len(known | {fingerprint(lowering(2.0), here, **how)}) == len(known) + 1 == 6


def test_the_folder_is_the_variables_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("ADASPEC_CACHE", raising=False)
    assert planning.folder() == tmp_path / "user" / "adaspec_jax" / "plans"
    monkeypatch.setenv("ADASPEC_CACHE", str(tmp_path / "mine"))
    assert planning.folder() == tmp_path / "mine" / "plans"


def test_every_stage_is_said_before_any_search_and_kept_before_it_ends(tmp_path, capsys, monkeypatch):
    """Whoever stops a search has the rest in the file already."""
    found, written = tmp_path / "plan.json", []

    class Planned(planning.Plan):
        def stages(self, names, *, known=None):
            figures = {"fits": True, "hbm_bytes": 1, "hbm_limit_bytes": 2, "how": "compiled", "batch": 1, "length": 1}
            figures |= dict.fromkeys(("arguments_bytes", "temporaries_bytes", "outputs_bytes")) | {"chosen": "nothing"}
            for name in names:
                if known:
                    written.append(sorted(json.loads(found.read_text())["stages"]))
                yield name, figures | ({"largest_batch": 7} if known else {})

    monkeypatch.setattr(planning, "Plan", Planned)
    asked = ["plan", "--config", "configs/quickstart.py", "--topology", "cpu", "--stages", "draft,decode"]
    status, out, _ = command_line(capsys, monkeypatch, *asked, "--json", found)
    lines = [line.partition(":")[0] + (" searched" if "largest" in line else "") for line in out.splitlines()[1:]]
    assert (status, lines) == (0, ["draft", "decode", "draft searched", "decode searched"])
    assert written == [["decode", "draft"]] * 2
    assert json.loads(found.read_text())["stages"]["draft"]["largest_batch"] == 7


def test_efforts_are_put_back_whatever_happens():
    with pytest.raises(KeyError), ahead_of_time.at_effort(-1.0):
        assert jax.config.jax_exec_time_optimization_effort == -1.0
        raise KeyError
    assert jax.config.jax_exec_time_optimization_effort == 0.0


@pytest.mark.parametrize(
    "bytes_at",
    [
        lambda n: 100 + 7 * n,
        lambda n: 100 + n * n,
        lambda n: 900 + (n > 32) * n,  # flat, and then not
        lambda n: 100 + 64 * -(-n // 64),  # in steps
        lambda n: 10 * n if n < 40 else 10_000,  # beyond the limit its size is not told
        lambda n: 5_000 + n,  # nothing fits
    ],
)
@pytest.mark.parametrize(("rows", "step"), [(16, 1), (16, 8), (2, 2), (512, 4)])
def test_the_largest_batch_is_found_in_a_few_programs_whatever_sizes_grow_by(bytes_at, rows, step):
    asked, limit = [], 1000

    def compiled(n):
        asked.append(n)
        return bytes_at(n)

    where = slices.Slice(topologies.find("cpu"), sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), limit)
    found = where.largest(rows, bytes_at(rows), step, compiled)
    most = max((n for n in range(step, 5000, step) if bytes_at(n) <= limit), default=0)
    assert len(asked) == len(set(asked)) <= slices.PROBES and found % step == 0
    assert found <= most <= max(found + step, 1.13 * found)
