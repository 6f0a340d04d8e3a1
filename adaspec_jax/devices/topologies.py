"""TPU slices that are described, not present: libtpu compiles for them on any machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import jax

from adaspec_jax.errors import UserError

EXAMPLES = ("v5e:1x1", "v5e:2x4", "v5e:16x16", "v6e:1x1", "v5p:2x2x1", "v5p:8x8x8", "v4:2x2x1", "cpu")


@dataclass(frozen=True)
class Chip:
    """What one chip offers, from its maker's tables (bfloat16; decimal units but for the memory, in bytes)."""

    memory: int  # that programs may use, as libtpu's own compiler counts it
    flops: float  # per second
    bandwidth: float  # bytes per second, of its memory


GIB = 2**30
CHIPS = {
    "v4": Chip(int(31.75 * GIB), 275e12, 1228e9),
    "v5e": Chip(int(15.75 * GIB), 197e12, 819e9),
    "v5p": Chip(int(95.74 * GIB), 459e12, 2765e9),
    "v6e": Chip(int(31.25 * GIB), 918e12, 1640e9),
}
# What a host of a generation is called; libtpu wants one named although there is none.
_ACCELERATOR = {"v4": "v4-8", "v5e": "v5litepod-4", "v5p": "v5p-8", "v6e": "v6e-4"}


@dataclass(frozen=True)
class Topology:
    """Devices to compile for."""

    name: str
    devices: list[Any]
    backend: str
    chip: Chip | None  # None: nobody's table has it


def have_libtpu() -> bool:
    try:
        import libtpu  # noqa: F401
    except ImportError:
        return False
    return True


def find(name: str) -> Topology:
    """The devices of "v5e:2x4" and the like, or of this machine ("cpu"). UserError where there is no such slice.

    A slice needs libtpu (`pip install "jax[tpu]"`), and no TPU.
    """
    if name == "cpu":
        return Topology(name, jax.devices("cpu"), "cpu", None)
    parse(name)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # only its compiler is used, by as many as like
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", _ACCELERATOR[name.partition(":")[0]])
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    one_chip = {"chips_per_host_bounds": [1, 1, 1]} if parse(name)[1] == 1 else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **one_chip)
    except Exception as error:  # libtpu's words for a shape that no slice has
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f'topology "{name}" is none that libtpu knows ({reason}); known are {", ".join(EXAMPLES)}'
        ) from error
    return Topology(name, list(described.devices), "tpu", CHIPS[name.partition(":")[0]])


def stand_in(name: str) -> Topology:
    """The slice without its compiler: this machine's CPU as that many devices. Comes before jax computes anything."""
    chip, count = parse(name)
    jax.config.update("jax_num_cpu_devices", count)
    return Topology(name, jax.devices("cpu"), "tpu", chip)


def parse(name: str) -> tuple[Chip, int]:
    """(chip, how many) of "v5e:2x4"; UserError naming known ones where it cannot be read."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not match or match[1] not in CHIPS:
        raise UserError(f'unknown topology "{name}"; known are {", ".join(EXAMPLES)} and others of these generations')
    count = 1
    for side in match[2].split("x"):
        count *= int(side)
    if not count:
        raise UserError(f'topology "{name}" has no chips')
    return CHIPS[match[1]], count
