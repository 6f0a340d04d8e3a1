"""python launch/licences.py > docs/licences.md: the licence of each package that constraints.txt pins, as it says.

What this Python does not install (packages of other platforms and versions) keeps the line that it had.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TABLE = CHECKOUT / "docs" / "licences.md"
HEAD = """# Licences of what is installed

By `python launch/licences.py`, from the packages' own metadata; those of `requirements.txt` and what they need are what
using the package takes, the rest is for its tests.

| package | licence |
|---|---|"""


def licence_of(name: str) -> str | None:
    """As its metadata say; None where it is not installed."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return None
    kinds = [each.rpartition(":: ")[2] for each in said.get_all("Classifier", []) if each.startswith("License ::")]
    text = (said.get("License") or "").strip().partition("\n")[0]
    return said.get("License-Expression") or "; ".join(kinds) or text or "not said"


def rows() -> dict[str, str]:
    """{package: licence} in the order of constraints.txt."""
    before = (
        dict(re.findall(r"^\| ([a-z0-9-]+) \| (.*) \|$", TABLE.read_text(), re.MULTILINE)) if TABLE.exists() else {}
    )
    names = re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "constraints.txt").read_text(), re.MULTILINE)
    return {name: licence_of(name) or before.get(name, "not installed here") for name in names}


if __name__ == "__main__":
    print(HEAD)
    print("\n".join(f"| {name} | {licence} |" for name, licence in rows().items()))
