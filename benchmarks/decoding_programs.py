"""What decoding's compiled programs move on TPUs, beside an earlier checkout's: no TPU is needed, and nothing is timed.

    git worktree add /tmp/before COMMIT
    python benchmarks/decoding_programs.py --root /tmp/before --json benchmarks/results/decoding_programs.json

Pythia's shapes in bfloat16, with random prompts of 512 tokens and 128 new ones, greedy; plain, and with five guesses
of a draft. Per program: bytes of its arguments and temporaries, bytes accessed as XLA counts them (prefill, and the
body of each loop once). `caches_moved` counts operations outside of fusions that copy, or fill with one value, an
array as large as a layer's keys. The JSON keeps what is compiled, so that the command can be cut short and resumed;
`--only` takes the cells with these words in their names, `--layers 4` that many of each model's layers. Compiling
takes minutes a program. Needs libtpu (`pip install "jax[tpu]"`; found too where launch/setup.sh puts it).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAIRS = {"1b4": "31m", "160m": "31m"}  # target: draft, of benchmarks/pairs.py
TOPOLOGIES = ("v5e:1x1", "v6e:1x1")
LENGTH, NEW, GUESSES = 512, 128, 5
FIGURES = ("accessed_bytes", "temporary_bytes", "argument_bytes", "caches_moved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="the other checkout, called before")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", default="", help="cells with these words in their names")
    parser.add_argument("--layers", type=int, help="of each model; all where not given")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return print(json.dumps(figures(*args.worker.split(), layers=args.layers)))
    roots = {"after": ROOT} | ({"before": args.root.resolve()} if args.root else {})
    for cell, (side, root) in product(cells(args.layers), roots.items()):
        known = json.loads(args.json.read_text()) if args.json.is_file() else {}
        if side in known.get(cell, {}) or not all(word in f"{cell} {side}".split() for word in args.only.split()):
            continue
        command = [sys.executable, __file__, "--json", "-", "--worker", cell]
        command += ["--layers", str(args.layers)] if args.layers else []
        ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, check=True)
        found = json.loads(ran.stdout.splitlines()[-1])
        known = json.loads(args.json.read_text()) if args.json.is_file() else {}
        known[cell] = known.get(cell, {}) | {side: found}
        args.json.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(f"{cell} {side}:", *(f"{name} {found[name]:,}" for name in FIGURES), flush=True)


def cells(layers: int | None):
    cut = f" {layers} layers" if layers else ""
    for topology, target, kind, batch in product(TOPOLOGIES, PAIRS, ("plain", "speculative"), (8, 1)):
        yield f"{target} {kind} {batch} {topology}{cut}"


def figures(target: str, kind: str, batch: str, topology: str, *_, layers: int | None) -> dict:
    """Of one program; only names that both checkouts have."""
    if (compiler := Path(sys.prefix) / "tpu-compiler").is_dir():
        sys.path.append(str(compiler))
    import jax

    jax.config.update("jax_platforms", "cpu")
    from adaspec_jax.devices.ahead_of_time import needed
    from adaspec_jax.devices.topologies import find

    compiled = lowered(find(topology), target, kind, int(batch), layers).compile()
    needs, text = needed(compiled), compiled.as_text()
    width, heads = shape_of(target)[0], shape_of(target)[2]
    slots = LENGTH + NEW + (GUESSES if kind == "speculative" else 0) + 1
    keys = int(batch) * slots * heads * (width // heads)
    return {
        "accessed_bytes": int(compiled.cost_analysis()["bytes accessed"]),
        "temporary_bytes": needs.temporaries,
        "argument_bytes": needs.arguments,
        "caches_moved": caches_moved(text, keys),
    }


def shape_of(name: str) -> tuple[int, int, int, int]:
    from pairs import SHAPES

    return SHAPES[name]


def lowered(topology, target: str, kind: str, batch: int, layers: int | None):
    """The program of `generate`, on abstract values."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from pairs import config

    from adaspec_jax import models
    from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate
    from adaspec_jax.devices import ahead_of_time, sharding
    from adaspec_jax.models.causal_lm import parameter_shapes

    mesh = sharding.make_mesh(1, devices=topology.devices)

    def model(shape: str):
        cut = min(layers or math.inf, shape_of(shape)[1])
        decoder = models.config_from_hf(config(shape, layers=cut))
        whole = models.CausalLM(parameter_shapes(decoder), decoder).with_attention("xla", "bfloat16", backend="tpu")
        return ahead_of_time.abstract(jax.eval_shape(lambda model: model.astype(jnp.bfloat16), whole), mesh)

    row = partial(jax.ShapeDtypeStruct, dtype=jnp.int32, sharding=NamedSharding(mesh, sharding.BATCH))
    how = {"key": jax.random.key(0), "max_new_tokens": NEW, "sampling": Sampling(0.0), "eos_id": 0}
    drafter = NoDraft() if kind == "plain" else ChainDrafter(model(PAIRS[target]), length=GUESSES)
    prompt = Context(row((batch, LENGTH)), row((batch,)))
    decode = jax.jit(lambda *given: generate(*given, **how))
    return ahead_of_time.lowered(decode, model(target), drafter, prompt, mesh=mesh, backend="tpu").lowering


ARRAY = re.compile(r"\w+\[([\d,]*)\]")
LINE = re.compile(r"^ +(?:ROOT )?%(\S+) = (.*?) ([\w\-]+)\((.*)$")


def computations(text: str) -> dict[str, list[tuple[str, str, str, str]]]:
    """{computation: [(result, its type, operation, the rest of the line)]}."""
    found, now = {}, []
    for line in text.splitlines():
        if head := re.match(r"^(?:ENTRY )?%(\S+) \(", line):
            now = found.setdefault(head[1], [])
        elif parts := LINE.match(line):
            now.append(parts.groups())
    return found


def caches_moved(text: str, keys: int) -> int:
    """Operations that copy, or fill with one value, as many elements as a layer's keys have, fusions left aside."""
    count = 0
    for lines in (lines for name, lines in computations(text).items() if not name.startswith("fused")):
        for _, kind, operation, _ in lines:
            spec = ARRAY.search(kind)
            if operation in ("copy", "copy-start", "transpose", "broadcast") and spec and spec[1]:
                count += math.prod(int(x) for x in spec[1].split(",")) == keys
    return count


if __name__ == "__main__":
    main()
