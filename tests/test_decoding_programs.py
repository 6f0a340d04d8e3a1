"""What `benchmarks/decoding_programs.py` reads off a compiled program; and one for a TPU moves no cache."""

import pytest

from adaspec_jax.devices import topologies
from benchmarks import decoding_programs as programs
from tests.running import CHECKOUT

PROGRAM = """HloModule jit_decode

%fused_scatter (a: bf16[2,100,4], b: s32[2], c: bf16[2,4]) -> bf16[2,100,4] {
  %a = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} parameter(0)
  %zeros = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} broadcast(%constant.1), dimensions={}
  ROOT %scatter.1 = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} scatter(%a, %b, %c), update_window_dims={1}
}

%inner.2 (t: (f32[8,128])) -> (f32[8,128]) {
  %t = (f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%t), index=0
  %y.1 = f32[8,128]{1,0:T(8,128)S(1)} add(%x.1, %x.1)
  ROOT %out.1 = (f32[8,128]{1,0:T(8,128)}) tuple(%x.1)
}

%round.3 (t: (bf16[2,100,4], f32[3,5], s32[2])) -> (bf16[2,100,4], f32[3,5], s32[2]) {
  %t.1 = (bf16[2,100,4]{2,1,0:T(8,128)(2,1)}, f32[3,5]{1,0:T(8,128)}, s32[2]{0:T(128)S(1)}) parameter(0)
  %cache = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} get-tuple-element(%t.1), index=0
  %small = f32[3,5]{1,0:T(8,128)} get-tuple-element(%t.1), index=1
  %where = s32[2]{0:T(128)S(1)} get-tuple-element(%t.1), index=2
  %new = bf16[2,4]{1,0:T(8,128)(2,1)} fusion(%small), kind=kLoop, calls=%fused_other
  %written = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} fusion(%cache, %where, %new), kind=kCustom, calls=%fused_scatter
  %loop = (f32[8,128]{1,0:T(8,128)}) while(%begin), body=%inner.2, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %tuple.1 = (bf16[2,100,4], f32[3,5], s32[2]) tuple(%written, %small, %where)
}

ENTRY %main (p: bf16[2,100,4]) -> bf16[2,100,4] {
  %p = bf16[2,100,4]{2,1,0:T(8,128)(2,1)} parameter(0)
  %copy.1 = bf16[200,4]{1,0:T(8,128)(2,1)} copy(%p)
  %rounds = (bf16[2,100,4]{2,1,0}, f32[3,5]{1,0}, s32[2]{0}) while(%tuple.9), condition=%d, body=%round.3
}
"""


def test_copies_of_a_cache_are_counted_where_they_are_no_part_of_a_fusion():
    assert programs.caches_moved(PROGRAM, 2 * 100 * 4) == 1
    assert programs.caches_moved(PROGRAM, 3 * 5) == 0


@pytest.mark.slow
@pytest.mark.skipif(not topologies.have_libtpu(), reason='libtpu is not installed (pip install "jax[tpu]")')
def test_plain_decoding_for_a_tpu_copies_no_cache_and_fills_none(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    assert programs.figures("31m", "plain", "8", "v5e:1x1", layers=2)["caches_moved"] == 0
