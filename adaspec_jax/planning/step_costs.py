"""What a program computes and what it sends between devices, read from the program itself.

The compiler's own cost analysis counts the body of a loop once; here loops count as often as they run.
"""

from __future__ import annotations

import math
import re
from typing import Any

from jax.extend import core

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def flops(jaxpr: Any, *, rounds: float) -> float:
    """Of all matrix products of a traced function, on all devices together; two per multiplication.

    `rounds`: how often a loop of unknown length runs. In a training step that is the loop over chunks of labels.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            total += 2.0 * math.prod(out.shape) * math.prod(left.shape[i] for i in contracted)
        elif name.startswith("ragged_dot"):
            total += _ragged_flops(equation)
        elif name == "shard_map":  # its body is one device's
            total += params["mesh"].size * flops(params["jaxpr"], rounds=rounds)
        elif name == "scan":
            total += params["length"] * flops(params["jaxpr"], rounds=rounds)
        elif name == "while":
            total += rounds * flops(params["body_jaxpr"], rounds=rounds)
        elif name == "cond":
            total += max(flops(branch, rounds=rounds) for branch in params["branches"])
        else:
            for value in params.values():
                for inner in value if isinstance(value, tuple | list) else (value,):
                    if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
                        total += flops(inner, rounds=rounds)
    return total


def _ragged_flops(equation: Any) -> float:
    """Of rows that each meet the matrix of their group alone, or of the outer products that are its gradient."""
    said = equation.params["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batch) = said.dot_dimension_numbers
    left, right = (var.aval.shape for var in equation.invars[:2])
    done = {*contracted, *batch, *said.rhs_group_dimensions}
    return 2.0 * math.prod(left) * math.prod(size for i, size in enumerate(right) if i not in done)


def collective_bytes(program: str, *, rounds: float) -> float:
    """Bytes that one device contributes to collectives in a run of a compiled program, from its HLO text.

    Each collective counts with its largest operand or result; loops as often as they run (`rounds` where the compiler
    does not know).
    """
    bodies = _computations(program)

    def of(name: str, seen: tuple[str, ...] = ()) -> float:
        if name in seen:
            return 0.0
        total = 0.0
        for line in bodies.get(name, ()):
            operation = re.search(r"= (.*?) ([\w-]+)\(", line)
            kind = operation[2] if operation else ""
            if kind.removesuffix("-start") in _COLLECTIVES:
                total += max(map(_bytes, re.findall(r"(\w+)\[([\d,]*)\]", line.split(", metadata")[0])), default=0)
            times: float = 1
            if kind == "while":
                known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                times = int(known[1]) if known else rounds
            for inner in re.findall(r"(?:body|calls|to_apply|branch_computations)=\{?%?([\w.-]+)", line):
                total += times * of(inner, (*seen, name))
        return total

    entry = next((name for name in bodies if name.startswith("ENTRY ")), None)
    return of(entry) if entry else 0.0


def _computations(program: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    current: list[str] = []
    for line in program.splitlines():
        opening = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line.strip())
        if opening and not line.startswith("  "):
            current = bodies.setdefault((opening[1] or "") + opening[2], [])
        else:
            current.append(line)
    return bodies


def _bytes(shape: tuple[str, str]) -> int:
    kind, sides = shape
    return _SIZES.get(kind, 0) * math.prod(int(side) for side in sides.split(",") if side)
