"""The next command, whole, for each finding."""

from __future__ import annotations

import dataclasses
import shlex

from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.program import called_as

AGAIN = "again.py"  # in a run's directory: its config, to be changed on the command line


def retrain(evidence: Evidence, *overrides: str) -> str | None:
    """The run once more on its finished target, with these keys changed; None where there is no run."""
    if (run := evidence.names.workdir) is None:
        return None
    mine = [f"--config={run}/{AGAIN}", f"--workdir={run.rstrip('/')}-again", f"--config.target.init={run}/target"]
    mine += ["--config.target.epochs=0", "--config.tokenizer.init=target", *overrides]
    return f"{called_as('train')} {_joined(mine)}"


def evaluate(evidence: Evidence, *options: str) -> str:
    """The pair measured once more, with these options."""
    names, served = evidence.names, evidence.served
    given = {"--temperature": f"{served.temperature:g}", "--draft_length": str(served.draft_length or 5)}
    given |= {"--dtype": served.dtype, "--max_new_tokens": str(served.max_new_tokens)}
    given |= dict(option.split("=", 1) for option in options)
    mine = [f"--target={names.target}", f"--draft={names.draft}", *(f"{name}={value}" for name, value in given.items())]
    return f"{called_as('evaluate')} {_joined(mine)} {names.prompts} --json=again.json"


def evaluate_on_own(evidence: Evidence) -> str:
    """The pair measured on the prompts that its run held out."""
    names = dataclasses.replace(evidence.names, prompts=evidence.names.own_prompts or evidence.names.prompts)
    return evaluate(dataclasses.replace(evidence, names=names))


def doctor(evidence: Evidence) -> str:
    mine = [f"--target={evidence.names.target}", f"--draft={evidence.names.draft}"]
    return f"{called_as('doctor')} {_joined(mine)}"


def _joined(parts: list[str]) -> str:
    return " ".join(map(shlex.quote, parts))
