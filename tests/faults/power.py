"""A power cut, played back: what a run asked of the system, and which files the disk may hold if it stops there.

strace records the calls, C++'s too; without it our own files alone are recorded, when they are synced or renamed. Of a
file the disk holds what was there at its last fsync, and of what was written since then nothing, a part or all; of a
folder the names that it had at its last fsync, and of the changes since then the first few. File systems promise more
(ext4 keeps the order of all names, for one); nothing may rest on it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fallocate,copy_file_range,sendfile"
)
_STRACE = ("strace", "-ffqq", "--seccomp-bpf", "-ttt", "-T", "-y", "-xx", "-s", "1000000000", "-e", f"trace={CALLS}")
_LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?(?: \(.*\))?(?: [A-Z].*)? <(\d+\.\d+)>$")
_FD = re.compile(r"(?:(\d+)|AT_FDCWD)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Op:
    """`kind` is make, folder, write, cut (to `at` bytes), sync, name (`path` becomes `to`), link, or remove."""

    kind: str
    path: str
    to: str = ""
    at: int = 0
    data: bytes = b""


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True)
    return tried.returncode == 0


def recorded(base: Path, trace: Path, command: Sequence[str], **how) -> tuple[int, list[Op]]:
    """The command's status, and all that it asked of the system about files below `base`."""
    trace.mkdir(parents=True)
    status = subprocess.run([*_STRACE, "-o", trace / "thread", *command], **how).returncode
    calls = sorted(call for file in trace.iterdir() for call in _calls(file))
    shutil.rmtree(trace)
    return status, list(_ops(calls, str(base)))


def _calls(file: Path) -> Iterator[tuple]:
    """(when it was done, name, arguments, value, the path of that) of the calls of one thread that were granted."""
    with file.open(encoding="latin-1") as lines:
        for line in lines:
            if (found := _LINE.match(line.rstrip("\n"))) and not found[4].startswith("-"):
                yield float(found[1]) + float(found[6]), found[2], found[3], int(found[4]), _plain(found[5] or "")


def _ops(calls: Iterable[tuple], base: str) -> Iterator[Op]:
    offsets: dict[int, list] = {}  # of each open file: [place of the next byte, or None for its end]
    sizes: dict[str, int] = {}
    for _, name, arguments, value, path in calls:
        fd = _FD.match(arguments)
        number, place = (int(fd[1]) if fd and fd[1] else None), _plain(fd[2]) if fd else ""
        paths = _paths(arguments, base) if name in _OF_PATHS else ()
        if name in ("openat", "creat"):
            offsets[value] = [None if "O_APPEND" in arguments else 0]
            if path.startswith(base + "/") and "O_CREAT" in arguments and path not in sizes:
                yield Op("make", path)
                sizes[path] = 0
            if path.startswith(base + "/") and "O_TRUNC" in arguments and sizes.get(path):
                yield Op("cut", path)
                sizes[path] = 0
        elif name == "lseek" and number in offsets and offsets[number][0] is not None:
            offsets[number][0] = value
        elif name in ("write", "writev", "pwrite64", "pwritev", "pwritev2") and place.startswith(base + "/"):
            data = b"".join(_bytes(part) for part in _STRING.findall(arguments))[:value]
            of_file = offsets.get(number, [None])  # one that was duplicated, as standard output, is appended to
            at = of_file[0] if name in ("write", "writev") else int(arguments.rsplit(", ", 1)[1])
            at = sizes.get(place, 0) if at is None else at
            if name in ("write", "writev") and of_file[0] is not None:
                of_file[0] += value
            sizes[place] = max(sizes.get(place, 0), at + value)
            yield Op("write", place, at=at, data=data)
        elif name == "ftruncate" and place.startswith(base + "/"):
            sizes[place] = int(arguments.rsplit(", ", 1)[1])
            yield Op("cut", place, at=sizes[place])
        elif name in ("fsync", "fdatasync") and place.startswith(base):
            yield Op("sync", place)
        elif paths and paths[0].startswith(base + "/"):
            if name.startswith(("rename", "link")):
                for old in [old for old in sizes if (old + "/").startswith(paths[0] + "/")]:
                    moved = paths[1] + old[len(paths[0]) :]
                    sizes[moved] = sizes[old] if name.startswith("link") else sizes.pop(old)
                yield Op("link" if name.startswith("link") else "name", paths[0], to=paths[1])
            elif name.startswith("mkdir"):
                yield Op("folder", paths[0])
            elif name.startswith(("unlink", "rmdir")):
                sizes.pop(paths[0], None)
                yield Op("remove", paths[0])
            else:
                raise NotImplementedError(f"{name} of {paths[0]}")


_OF_PATHS = set("rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir".split())


def _plain(text: str) -> str:
    return _bytes(text).decode() if "\\x" in text else text


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _paths(arguments: str, base: str) -> list[str]:
    """The paths a call names, absolute; it runs in `base`."""
    found = re.findall(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"((?:\\x[0-9a-f]{2})*)"', arguments)
    return [os.path.normpath(os.path.join(_plain(folder) or base, _plain(name))) for folder, name in found]


@dataclass
class _Node:
    """A file (bytes) or a folder ({name: node}), as it is and as the disk has it at least."""

    now: bytearray | dict
    synced: bytes | dict
    since: list[Callable] = field(default_factory=list)  # what was done to `now` since then, in order

    def change(self, act: Callable) -> None:
        act(self.now)
        self.since.append(act)

    def sync(self) -> None:
        self.synced, self.since = type(self.now)(self.now), []


class Disk:
    """What lies below a folder after some operations."""

    def __init__(self, base: Path) -> None:
        self._base, self._root = str(base), _Node({}, {})

    def apply(self, op: Op, *, syncs: bool = True) -> None:
        """Without `syncs`, as if the program asked for none."""
        folder, _, name = op.path.rpartition("/")
        if op.kind == "make":
            self._at(folder).change(_naming(name, _Node(bytearray(), b"")))
        elif op.kind == "folder":
            self._at(folder).change(_naming(name, _Node({}, {})))
        elif op.kind == "write":
            self._at(op.path).change(_writing(op.at, op.data))
        elif op.kind == "cut":
            self._at(op.path).change(_cutting(op.at))
        elif op.kind == "remove":
            self._at(folder).change(_naming(name, None))
        elif op.kind == "sync":
            if syncs:
                self._at(op.path).sync()
        else:
            there, _, new = op.to.rpartition("/")
            node, here = self._at(op.path), self._at(folder)
            if there == folder and op.kind == "name":
                here.change(_renaming(name, new, node))
            else:
                self._at(there).change(_naming(new, node))
                if op.kind == "name":
                    here.change(_naming(name, None))

    def write_to(self, base: Path) -> None:
        """All of it, as a run finds it that goes on without a power cut."""
        _written(base, self._root, lambda node: node.now)

    def after_a_power_cut(self, base: Path, moments: random.Random) -> None:
        """What the disk may hold, by chance: often all names, as a journal keeps them, and part of the contents."""
        mood = moments.choice(("names", "names", "names", "some", "some", "some", "nothing"))

        def survived(node: _Node) -> bytes | dict:
            kept, count = type(node.now)(node.synced), moments.randint(0, len(node.since))
            if node is self._root:  # the folder that the run was given
                return node.now
            if mood == "nothing":
                return kept
            if isinstance(node.now, bytearray):
                fate = moments.choice(("lost", "whole", "torn", "first changes"))
                grew = node.since and node.now.startswith(node.synced)
                if fate == "torn" and grew:  # its length is known, of its content a part there
                    part = moments.randint(len(node.synced), len(node.now))
                    return bytes(node.now[:part]) + bytes(len(node.now) - part)
                count = {"lost": 0, "whole": len(node.since)}.get(fate, count)
            elif mood == "names" or moments.random() < 0.5:
                count = len(node.since)
            for act in node.since[:count]:
                act(kept)
            return kept

        _written(base, self._root, survived)

    def _at(self, path: str) -> _Node:
        node = self._root
        for part in [part for part in path[len(self._base) :].split("/") if part]:
            node = node.now[part]
        return node


def _naming(name: str, node: _Node | None) -> Callable:
    def act(names: dict) -> None:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node

    return act


def _renaming(old: str, new: str, node: _Node) -> Callable:
    def act(names: dict) -> None:
        names.pop(old, None)
        names[new] = node

    return act


def _writing(at: int, data: bytes) -> Callable:
    def act(content: bytearray) -> None:
        content.extend(bytes(max(at - len(content), 0)))
        content[at : at + len(data)] = data

    return act


def _cutting(size: int) -> Callable:
    def act(content: bytearray) -> None:
        content[size:] = bytes(max(size - len(content), 0))

    return act


def _written(path: Path, node: _Node, content_of: Callable) -> None:
    content = content_of(node)
    if isinstance(content, dict):
        path.mkdir(parents=True, exist_ok=True)
        for name, inside in content.items():
            _written(path / name, inside, content_of)
    else:
        path.write_bytes(content)


def main() -> None:
    """python -m tests.faults.power BASE TRACE COMMAND ...: how many calls of each kind a command makes."""
    base, trace, *command = sys.argv[1:]
    status, ops = recorded(Path(base), Path(trace), command)
    kinds = [op.kind for op in ops]
    print(f"status {status};", ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted({*kinds})))


if __name__ == "__main__":
    main()
