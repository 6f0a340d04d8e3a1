"""Weight tables: rows of (tensor on disk, our parameters, layout), applied in both directions.

A table's first row is the embedding. What its name begins with, up to the dot, is the prefix of the base model, which
transformers adds to a tensor's name or takes away, wherever a tensor of the model then has that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import traverse_util

from adaspec_jax.errors import UserError

_GREATEST = float(np.finfo(np.float32).max)
# All ones in infinity and NaN.
_EXPONENTS = {np.dtype(ml_dtypes.bfloat16): np.uint16(0x7F80), np.dtype(np.float16): np.uint16(0x7C00)}
FLOATS = ("F32", "F16", "BF16", "F64")
# Heads that other trainers leave beside a language model's own: values, rewards, classes.
HEADS = re.compile(r"(v_head|value_head|reward_head|score|multiple_choice_head)\..+")


class Layout(NamedTuple):
    """`split`: a tensor on disk -> our arrays; `merge`: our arrays -> the tensor on disk. NumPy, exact inverses."""

    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    merge: Callable[..., np.ndarray]


class Weight(NamedTuple):
    """One row of a table."""

    name: str  # the tensor on disk
    paths: tuple[str, ...]  # our parameters, "/"-separated
    layout: Layout
    also: tuple[str, ...] = ()  # other names the tensor may carry when it is read
    tied_to: str | None = None  # on disk equal to the row of that name, or in its stead, or absent; never written
    entry: int | None = None  # of a stack, along its first dimension, of which every entry has a row; None: all of it


class StoredTensor(NamedTuple):
    """A tensor in a file: its shape and kind are known, its values are read on demand."""

    shape: tuple[int, ...]
    kind: str  # as safetensors spells it: "F32", "BF16", "U8", ...
    read: Callable[[], np.ndarray]


same = Layout(lambda x: (x,), lambda x: x)
transposed = Layout(lambda x: (x.T,), lambda x: x.T)


def fused_qkv(blocks: int, width: int, *, order: str = "qkv") -> Layout:
    """Queries, keys and values in one matrix, its rows ordered [block of heads, `order`, `width` features].

    Ours, always as q, k, v: kernels [D, blocks * width] and biases [blocks * width].
    """
    places = [order.index(x) for x in "qkv"]

    def split(fused: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = fused.reshape(blocks, 3, width, *fused.shape[1:])
        return tuple(parts[:, place].reshape(blocks * width, *fused.shape[1:]).T for place in places)

    def merge(*qkv: np.ndarray) -> np.ndarray:
        parts = ["qkv".index(x) for x in order]
        rows = [qkv[i].T.reshape(blocks, width, *qkv[i].T.shape[1:]) for i in parts]
        return np.stack(rows, axis=1).reshape(3 * blocks * width, *rows[0].shape[2:])

    return Layout(split, merge)


def linear(name: str, path: str, *, bias: bool) -> list[Weight]:
    """Rows of one torch `Linear`: weight [out, in] -> kernel [in, out], and its bias."""
    weight = Weight(f"{name}.weight", (f"{path}/kernel",), transposed)
    return [weight, Weight(f"{name}.bias", (f"{path}/bias",), same)] if bias else [weight]


def norm(name: str, path: str, *, bias: bool = True) -> list[Weight]:
    """Rows of one norm: weight -> scale, and its bias."""
    weight = Weight(f"{name}.weight", (f"{path}/scale",), same)
    return [weight, Weight(f"{name}.bias", (f"{path}/bias",), same)] if bias else [weight]


def by_path(shapes: Any) -> list[Weight]:
    """A table of a tensor per parameter, named by its path and laid out as it is."""
    return [Weight(path.replace("/", "."), (path,), same) for path in traverse_util.flatten_dict(shapes, sep="/")]


def params_from_tensors(
    table: list[Weight],
    tensors: Mapping[str, StoredTensor],
    shapes: Any,
    *,
    dtype: Any,
    ignored: re.Pattern,
    origin: str,
    note: Callable[[str], None] = print,
) -> Any:
    """The parameters `tensors` hold, in `dtype`; UserError naming every missing, unexpected or misshapen tensor, once.

    `shapes` is the parameter pytree as ShapeDtypeStructs. Tensors are read one at a time, so that memory holds the
    parameters and one tensor, or one stack of tensors. `note` is told what beside the model's own is left unread.
    """
    expected = traverse_util.flatten_dict(shapes, sep="/")
    found = _stored_names(table, tensors)
    if heads := _check_names_and_shapes(found, tensors, expected, ignored=ignored, origin=origin):
        note(f"{origin}: heads beside the language model's are not read {_some(heads)}")
    source = {row.name: name for row, name in found.items()}
    params: dict[str, Any] = {}
    stacks: dict[str, Any] = {}
    for row, name in found.items():
        if row.tied_to is not None:
            tied_to = source[row.tied_to]
            if (
                name is not None
                and tied_to is not None
                and not np.array_equal(tensors[name].read(), tensors[tied_to].read())
            ):
                raise UserError(
                    f"{origin}: config.json ties the embeddings, but {name} differs from {tied_to}; "
                    'set "tie_word_embeddings": false there to keep both'
                )
            continue
        assert name is not None, "told among the missing"
        array = tensors[name].read()
        if not is_finite(array):
            raise UserError(
                f"{origin}: {name} holds NaN or infinity (float16 that overflowed?); download or train it again"
            )
        if np.dtype(dtype) == np.float16 and array.size and np.abs(array).max() > np.finfo(np.float16).max:
            raise UserError(
                f"{origin}: {name} has values beyond 65,504, which float16 has not; take bfloat16 or float32"
            )
        for path, part in zip(row.paths, row.layout.split(array), strict=True):
            if row.entry is not None:
                count = len(stack := stacks.setdefault(path, np.empty(expected[path].shape, dtype)))
                stack[row.entry] = part
                if row.entry < count - 1:
                    continue
                part = stacks.pop(path)
            # A copy: an array that shares memory with NumPy must not be donated later.
            params[path] = jnp.array(part, dtype)
    return traverse_util.unflatten_dict(params, sep="/")


def is_finite(array: np.ndarray) -> bool:
    """Whether all values are, in float32 too."""
    if (ones := _EXPONENTS.get(array.dtype)) is not None:  # whose least and greatest NumPy finds very slowly
        return not np.any(array.view(np.uint16) & ones == ones)
    return not array.size or bool(np.min(array) >= -_GREATEST and np.max(array) <= _GREATEST)


def tensors_from_params(table: list[Weight], params: Any) -> dict[str, np.ndarray]:
    """The tensors to write, C-contiguous, in the parameters' dtype; tied ones are left out."""
    flat = traverse_util.flatten_dict(params, sep="/")
    rows = [row for row in table if row.tied_to is None]
    if unclaimed := set(flat) - {path for row in rows for path in row.paths}:
        raise ValueError(f"parameters that no row of the weight table claims: {sorted(unclaimed)}")
    # safetensors writes the buffer as it lies: a strided view would be saved scrambled.
    whole = lambda row: [np.asarray(flat[path]) for path in row.paths]  # noqa: E731
    return {
        row.name: np.ascontiguousarray(
            row.layout.merge(*(x if row.entry is None else x[row.entry] for x in whole(row)))
        )
        for row in rows
    }


def _stored_names(table: list[Weight], tensors: Mapping[str, StoredTensor]) -> dict[Weight, str | None]:
    """{row: the name that its tensor has on disk, with or without the prefix, None where it is absent}."""
    prefix = table[0].name.partition(".")[0] + "."

    def stored(row: Weight) -> str | None:
        names = [row.name, *row.also]
        names += [name.removeprefix(prefix) for name in names] + [prefix + name for name in names]
        return next((name for name in names if name in tensors), None)

    found = {row: stored(row) for row in table}
    rows = {row.name: row for row in table}
    for row in table:
        if row.tied_to is not None and found[rows[row.tied_to]] is None:  # one tensor, saved under its other name
            found[rows[row.tied_to]], found[row] = found[row], None
    return found


def _check_names_and_shapes(
    found: Mapping[Weight, str | None],
    tensors: Mapping[str, StoredTensor],
    expected: Mapping[str, Any],
    *,
    ignored: re.Pattern,
    origin: str,
) -> list[str]:
    """Names of other trainers' heads; UserError for all that does not fit."""
    missing = [row.name for row, name in found.items() if name is None and row.tied_to is None]
    known = {name for name in found.values() if name is not None}
    others = [name for name in sorted(tensors) if name not in known and not ignored.fullmatch(name)]
    heads = [name for name in others if HEADS.fullmatch(name)]
    unexpected = [name for name in others if name not in heads]
    misshapen = []
    for row, name in found.items():
        if name is not None:
            stacked = row.entry is not None
            needed = _shape_on_disk(row, [expected[path].shape[stacked:] for path in row.paths], origin)
            if tuple(tensors[name].shape) != needed:
                misshapen.append(f"{name} {list(tensors[name].shape)} instead of {list(needed)}")
    # Quantised weights (8 bits and fewer) would load as if their codes were values.
    coded = [f"{name} {tensors[name].kind}" for name in found.values() if name and tensors[name].kind not in FLOATS]
    groups = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "not floating point": coded}
    report = [f"{kind} {_some(names)}" for kind, names in groups.items() if names]
    if report:
        raise UserError(f"{origin}: the tensors do not fit config.json: {'; '.join(report)}")
    return heads


def _shape_on_disk(row: Weight, shapes: list[tuple[int, ...]], origin: str) -> tuple[int, ...]:
    try:
        return row.layout.merge(*(np.broadcast_to(np.int8(0), shape) for shape in shapes)).shape
    except ValueError:  # more entries than NumPy counts
        raise UserError(f"{origin}: {row.name} would have the shape {list(shapes[0])} by what describes it") from None


def _some(names: list[str], limit: int = 12) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"({len(names)}): {', '.join(names[:limit])}{rest}"
