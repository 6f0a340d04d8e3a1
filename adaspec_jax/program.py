"""How this program was called, and the versions that it runs in."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import re
import sys

from adaspec_jax import __version__
from adaspec_jax.errors import first_line

COMMAND, MODULE = "adaspec-jax", "python -m adaspec_jax"
_PACKAGES = ("jax", "jaxlib", "flax")


def called_as(command: str) -> str:
    """What is to be typed to run a command as the running one was: the one name with it, or the module of its own."""
    program = sys.argv[0].rpartition(" ")[0]
    return f"{program} {command}" if program in (COMMAND, MODULE) else f"{MODULE}.{command}"


def usage(doc: str | None) -> str:
    """A command's docstring, whose first line says how to call it, as it was called."""
    return re.sub(rf"^{MODULE}\.(\w+)", lambda found: called_as(found[1]), (doc or "").strip())


class ShowVersions(argparse.Action):
    """The option that prints `versions` and exits."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print versions and the device, and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        print(versions())
        parser.exit()


def versions() -> str:
    """Of this package, jax and Python, and the device that jax finds; a line each."""
    found = ", ".join(f"{name} {_installed(name)}" for name in _PACKAGES)
    python = f"python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return "\n".join([f"{COMMAND} {__version__}", found, f"device: {_device()}", python])


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _device() -> str:
    try:
        import jax

        devices = jax.devices()
    except Exception as error:  # versions are asked for where something does not work
        return f"none ({first_line(error)})"
    kind, backend = devices[0].device_kind, devices[0].platform
    return f"{len(devices)} x {kind}" + (f" ({backend})" if backend != kind else "")
