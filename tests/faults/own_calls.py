"""What a run asks of the system, recorded from inside where nothing may trace it: what Python itself syncs and renames.

Between such calls, files are seen as they are found: what C++ syncs counts as not synced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.faults.power import Op


class OwnCalls:
    """`ops` is what happened below `base` since this was made."""

    def __init__(self, base: Path) -> None:
        self._base, self._known, self.ops = base, {}, []
        self._fsync, self._replace, self._rename = os.fsync, os.replace, os.rename
        os.fsync, os.replace, os.rename = self._synced, self._named(self._replace), self._named(self._rename)

    def _synced(self, opened: int) -> None:
        self._fsync(opened)
        path = os.readlink(f"/proc/self/fd/{opened}")
        self.look()
        if path in self._known:
            self.ops.append(Op("sync", path))

    def _named(self, act):
        def named(old, new, **how) -> None:
            before, after = (os.path.abspath(os.fspath(path)) for path in (old, new))
            self.look()
            act(old, new, **how)
            if before not in self._known:
                return
            self.ops.append(Op("name", before, to=after))
            self._known.pop(after, None)
            for path in [path for path in self._known if (path + "/").startswith(before + "/")]:
                self._known[after + path[len(before) :]] = self._known.pop(path)

        return named

    def look(self) -> None:
        """Notes what is there now, or is gone, and was not so before."""
        found = dict(self._found(self._base))
        for path in sorted(self._known.keys() - found.keys(), reverse=True):
            del self._known[path]
            self.ops.append(Op("remove", path))
        for path, content in sorted(found.items()):
            new, before = path not in self._known, self._known.get(path)
            self._known[path] = content
            if new:
                self.ops.append(Op("folder" if content is None else "make", path))
            if content is not None and content != before:
                kept = before or b""
                if not content.startswith(kept):
                    self.ops.append(Op("cut", path))
                    kept = b""
                self.ops.append(Op("write", path, at=len(kept), data=content[len(kept) :]))

    def _found(self, folder: Path) -> Iterator[tuple[str, bytes | None]]:
        """(path, content, None of a folder): what other threads take away meanwhile is left out."""
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, None
                yield from self._found(Path(entry.path))
            else:
                try:
                    yield entry.path, Path(entry.path).read_bytes()
                except OSError:
                    continue
