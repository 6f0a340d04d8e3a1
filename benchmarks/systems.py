"""Every system of the field's survey and those since, in one table: docs/systems.md.

    python benchmarks/systems.py > docs/systems.md

Nothing is measured by it: figures are taken from the committed results, what others measured from
`adaspec_jax/methods/published.py`, and whether a method is lossless from its own row.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from adaspec_jax.methods import METHODS, PUBLISHED  # noqa: E402

HEAD = """\
# Every system, where it is, what it kept here

<!-- written by `python benchmarks/systems.py > docs/systems.md` -->

The systems of the survey of generation-refinement decoding (arXiv 2502.19732), by its order, and those that came
since. `benchmark --methods NAME` decodes with each; [methods](methods.md) says how it was built and what of it is
ours, [heads](heads.md) how those that are trained are trained. **Text**: "the target's" is lossless, plain decoding's
text at temperature 0 and its law at any other; "its own" is lossy. **Kept here**: tokens per target call, bonus token
included, at temperature 0, of the committed tables: "S" is SmolLM2-135M with a weak draft ([who wins](who_wins.md)),
"T" a chain of four guesses on stories260K ([heads](heads.md)); kinds that are trained differ in epochs, and "S" and
"T" do not compare. **Others say**: speed-up over plain decoding, with their models and machines; "third party" where
it is not the authors' own, which is about half of what authors say.
"""


class System(NamedTuple):
    """A row: its name and paper, the methods or commands that have it, and what must be said beside the figures."""

    name: str
    paper: str
    methods: tuple[str, ...] = ()  # the first one's figures are shown
    door: str = ""  # in place of methods
    text: str = ""  # in place of what its methods say
    head: str = ""  # its run in heads_stories.json, or its row in docs/heads.md
    note: str = ""


SECTIONS: dict[str, list[System]] = {
    "Guesses without a second model": [
        System("Filling and Jacobi decoding", "2305.10427", ("jacobi", "jacobi_gauss_seidel")),
        System("LLMA", "2304.04487", ("llma",)),
        System("REST", "2311.08252", ("rest",)),
        System(
            "Speculative RAG",
            "2407.08223",
            door="`python -m adaspec_jax.rag`",
            text="its own",
            note="whole answers, [beside plain RAG](methods.md)",
        ),
        System("ANPD", "2404.08698", ("anpd",)),
        System("Lookahead decoding", "2402.02057", ("lookahead",)),
        System("N-Grammys", "2411.03786", ("n_grammys",), note="its sizes are ours"),
    ],
    "A draft model of its own": [
        System("Speculative decoding", "2211.17192, 2302.01318", ("vanilla",)),
        System("SpecInfer", "2305.09781", ("specinfer", "distinct")),
        System(
            "DistillSpec",
            "2310.08461",
            ("lenient",),
            door="the reference of every run; lossy verification `lenient`",
            text="the target's; its own with `lenient`",
            note="[results](results.md)",
        ),
        System(
            "AdaSPEC",
            "2510.19779",
            door="`python -m adaspec_jax.train`",
            text="the target's",
            note="no gain over plain distillation on equal data: [results](results.md)",
        ),
        System(
            "SpecDec", "2203.16487", ("specdec", "top_beta"), head="specdec", note="its drafter over a decoder alone"
        ),
        System("SpecDec++", "2405.19715", ("specdec_pp",), head="specdec_pp", note="its draft alone"),
        System("BiLD", "2302.07863", ("bild",)),
        System(
            "On-the-fly adaptation",
            "Liu, Park and Shen, ACL 2025",
            ("on_the_fly", "finite_state", "copy_first"),
            note="without its Q-learning",
        ),
        System("Fuzzy speculative decoding", "2502.20704", ("fsd",)),
        System("PyramidSD", "2510.12966", ("pyramidsd_f", "pyramidsd_a"), note="three models: `configs/pyramid.py`"),
        System("CS Drafting", "2312.11462", ("cs_drafting",), note="lossless with `lenience=1` at temperature 0"),
        System("SpecExec", "2406.02532", ("specexec", "match"), note="the algorithm; no offloading"),
        System("EdgeLLM", "2309.04255", ("edgellm",), note="the tree and its threshold; no phone"),
        System(
            "SpecPIM",
            "ASPLOS 2024",
            door="`planning.overlap.overlapped_speedup`",
            text="the target's",
            note="[a formula](methods.md): drafting during verification",
        ),
    ],
    "The target's own layers": [
        System("Draft & Verify", "2309.08168", ("draft_and_verify",)),
        System("SWIFT", "2410.06916", ("swift",)),
        System("Draft on the Fly", "2410.01028", ("draft_on_the_fly",)),
        System(
            "LayerSkip",
            "2404.16710",
            ("layerskip",),
            note="untuned; [tuned](heads.md) 1.06 to 1.28 on stories260K (`target.early_exit`)",
        ),
        System("Kangaroo", "2404.18911", ("kangaroo", "kangaroo_chain"), head="kangaroo"),
        System("MagicDec", "2408.11049", ("magicdec",), note="short texts, its budget holds all of them"),
    ],
    "Heads on the target's features, trained": [
        System("EAGLE", "2401.15077", ("eagle", "eagle_chain"), head="eagle"),
        System("EAGLE-2", "2406.16858", ("eagle2",), note="EAGLE's heads"),
        System("EAGLE-3", "2503.01840", ("eagle3", "eagle3_chain"), head="eagle3"),
        System("Hydra", "2402.05109", ("hydra", "hydra_chain", "hydra_typical"), head="hydra"),
        System("Hydra++", "2402.05109", ("hydra_plus", "hydra_plus_chain", "hydra_plus_typical"), head="hydra_plus"),
        System("Medusa", "2401.10774", ("medusa", "medusa_chain", "medusa_typical", "typical"), head="medusa"),
        System("Falcon", "2412.12639", ("falcon", "falcon_chain"), head="falcon"),
        System("Amphista", "2406.13170", ("amphista", "amphista_chain", "amphista_typical"), head="amphista"),
        System("PaSS", "2311.13581", ("pass",), head="pass", note="both passes of a round counted"),
        System("CTC drafting", "2412.00061", ("ctc", "ctc_chain"), head="ctc"),
        System(
            "VADUSA",
            "2410.21951",
            ("vadusa", "tolerance"),
            note="on synthetic sounds, [what it costs](methods.md); its own tree and rule are not known here",
        ),
        System("Multi-token prediction", "2412.19437, 2509.18362", ("mtp", "mtp_chain"), head="mtp"),
    ],
    "Since the survey": [
        System("LK losses", "2602.23881", door="`draft.divergence` `hybrid_acceptance`, ...", text="the target's"),
        System("Block verification", "2403.10444", ("block_verification",), note="[sampled](methods.md): +3 to 4 %"),
        System("Traversal verification", "2505.12398", ("traversal",)),
        System("K-SEQ", "2310.15141", ("kseq",)),
        System("Drafter-invariant text", "2408.07978", door="`--shared_noise`", text="one text for a seed"),
        System("DFlash", "2602.06036", ("dflash",), head="dflash"),
        System("P-EAGLE", "2602.01469", ("p_eagle",), head="p_eagle"),
        System("PARD, PARD-2", "2504.18583, 2605.08632", ("pard",), head="pard", note="from random weights"),
        System("SuffixDecoding", "2411.04975", ("suffix",)),
        System("Prompt lookup", "Saxena 2023", ("prompt_lookup",)),
        System("SAM decoding", "2411.10666", ("sam",)),
        System("Token recycling", "2408.08696", ("token_recycling",)),
        System(
            "Online speculative decoding",
            "2310.07177",
            door="`generate --learn DIR`",
            text="the target's",
            note="1.33 to 3.37 on new requests: [online](online.md)",
        ),
        System("Drafts with another tokenizer", "2502.05202", ("tli", "slem")),
        System(
            "Controllers of the number of guesses",
            "transformers",
            ("heuristic", "confident", "auto"),
            note="`auto` is ours, by measured costs",
        ),
    ],
}


def page() -> str:
    kept, stories = read("methods_smollm2_short.json")["methods"], on_stories()
    lines = [HEAD]
    for title, systems in SECTIONS.items():
        lines += [f"## {title}\n", "| system | here | text | kept here | others say |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(cells(system, kept, stories)) + " |" for system in systems] + [""]
    return "\n".join(lines)


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def on_stories() -> dict[str, float]:
    """Tokens per target call by kind of draft: of the committed runs, and of those that docs/heads.md lists."""
    rows = re.findall(r"^\| `(\w+)`[^|]*\|(?:[^|]*\|){4} ([\d.]+) \|$", (ROOT / "docs" / "heads.md").read_text(), re.M)
    found = {kind: float(calls) for kind, calls in reversed(rows)}  # of several, the first row
    runs = read("heads_stories.json")["runs"]
    committed = {name: run["drafts"]["draft"]["block_efficiency"] for name, run in runs.items()}
    return found | {name.removesuffix("_seed0"): calls for name, calls in committed.items()}


def cells(system: System, kept: dict[str, Any], stories: dict[str, float]) -> list[str]:
    return [
        f"{system.name} ({system.paper if not system.paper[:1].isdigit() else f'arXiv {system.paper}'})",
        system.door or ", ".join(f"`{name}`" for name in system.methods),
        system.text or texts(system.methods),
        "; ".join([*figures(system, kept, stories), *filter(None, [system.note])]) or "not measured",
        "; ".join(claim(each) for name in system.methods for each in PUBLISHED.get(name, ())) or "-",
    ]


def texts(methods: tuple[str, ...]) -> str:
    lossy = [name for name in methods if not METHODS[name].lossless]
    if not lossy:
        return "the target's"
    return "its own" if len(lossy) == len(methods) else f"the target's; its own with `{'`, `'.join(lossy)}`"


def figures(system: System, kept: dict[str, Any], stories: dict[str, float]) -> list[str]:
    found = [f"S {kept[name]['tokens_per_target_call']:.2f}" for name in system.methods[:1] if name in kept]
    return found + ([f"T {stories[system.head]:.2f}"] if system.head in stories else [])


def claim(published: Any) -> str:
    calls = published.tokens_per_target_call
    words = f"{published.speedup} ({published.models}, {published.machine}"
    return words + (f", {calls} tokens a call" if calls else "") + (", third party)" if published.third_party else ")")


if __name__ == "__main__":
    sys.stdout.write(page())
