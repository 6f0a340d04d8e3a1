"""A tensorflow-datasets builder for any file of JSON lines: packed into array_record, read back, no TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaspec_jax.data.rows import read_rows
from adaspec_jax.errors import UserError

VERSION = "1.0.0"


def read(
    path: str | os.PathLike, *, columns: Sequence[str], data_dir: str | os.PathLike | None = None, **reading: Any
) -> list[dict]:
    """The file's rows in its order, of `columns` only, read from array_record.

    The packed copy lies below `data_dir` (else TFDS_DATA_DIR, else ~/tensorflow_datasets) under a name made of the
    file's content and the columns, so a changed file is packed anew. `reading` goes to `read_rows`. UserError (file,
    line, column) for a bad row.
    """
    rows = builder(path, columns=columns, data_dir=data_dir, **reading).as_data_source(split="rows")
    return [decode(row, columns) for row in rows]


def builder(
    path: str | os.PathLike, *, columns: Sequence[str], data_dir: str | os.PathLike | None = None, **reading: Any
) -> Any:
    """The prepared `tfds.core.DatasetBuilder` of the file, with one split, `rows`, of text features."""
    rows, sha256 = read_rows(Path(path), columns, **reading)
    key = hashlib.sha256("\0".join([sha256, *columns]).encode()).hexdigest()[:16]
    with quiet():
        made = _builder_class()(rows, tuple(columns), key, data_dir or os.environ.get("TFDS_DATA_DIR"))
        made.download_and_prepare()
    return made


def decode(row: dict, columns: Sequence[str]) -> dict[str, str]:
    """A row as tensorflow-datasets gives it (text as bytes), with the text of `columns`."""
    values = {column: row[column] for column in columns if column in row}
    return {column: value.decode() if isinstance(value, bytes) else value for column, value in values.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on stdout, and no warnings of absl, while a builder prepares its files."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def import_tfds() -> Any:
    """tensorflow_datasets, whole: UserError names what its own import hides when one of its parts is missing."""
    try:
        importlib.import_module("importlib_resources")  # its download code needs it without saying so
        tfds = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise UserError(
            f"tensorflow-datasets cannot be used: {error}; pip install tensorflow-datasets grain importlib_resources"
        ) from error
    if not hasattr(tfds, "core"):
        raise UserError("tensorflow-datasets is only half installed (no `core`); pip install -U tensorflow-datasets")
    tfds.disable_progress_bar()
    return tfds


@functools.cache
def _builder_class() -> Any:
    """Made once: tensorflow-datasets refuses a second builder of one name. In a function: its import is slow."""
    tfds = import_tfds()

    base: Any = tfds.core.GeneratorBasedBuilder

    class JsonLines(base):
        """Rows of a local file of JSON lines, in its order."""

        VERSION = tfds.core.Version(VERSION)

        def __init__(self, rows: Any, columns: Sequence[str], key: str, data_dir: Any) -> None:
            self._rows, self._columns = rows, columns
            config = tfds.core.BuilderConfig(name=key, version=VERSION)
            super().__init__(config=config, data_dir=data_dir, file_format="array_record")

        def _info(self) -> Any:
            # `dataset_info_from_configs` would look for a package directory of this module, which there is not.
            return tfds.core.DatasetInfo(
                builder=self,
                description="Rows of a local file of JSON lines, in its order.",
                features=tfds.features.FeaturesDict({column: tfds.features.Text() for column in self._columns}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"rows": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, row in enumerate(self._rows):
                yield number, {column: row[column] for column in self._columns}

    return JsonLines
