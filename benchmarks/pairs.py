"""Random models of Pythia shapes, and pairs whose draft computes the target's own function.

A small random net is embedded exactly in a bigger shape: its residual stream repeated along the wider one, its heads
on rotary frequencies that match, all other output projections zero. Dense kernels do the bigger shape's full work, and
both give the same logits. Noise on the draft's output matrix then sets the acceptance rate.
"""

from __future__ import annotations

import jax
import numpy as np

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX

SHAPES = {  # hidden, layers, heads, intermediate: the Pythia suite, and the quickstart's size
    "quickstart": (128, 3, 4, 512),
    "quickstart_draft": (64, 2, 2, 256),
    "14m": (128, 6, 4, 512),
    "31m": (256, 6, 8, 1024),
    "70m": (512, 6, 8, 2048),
    "160m": (768, 12, 12, 3072),
    "410m": (1024, 24, 16, 4096),
    "1b4": (2048, 24, 16, 8192),
    "2b8": (2560, 32, 32, 10240),
}


def parameters(shape: str, vocab_size: int = 50304) -> int:
    """Of a Pythia shape, biases and norms included."""
    width, layers, _, inner = SHAPES[shape]
    layer = 4 * width * width + 2 * width * inner + 4 * width + inner + width + 4 * width
    return layers * layer + 2 * vocab_size * width + 2 * width


def config(shape: str, vocab_size: int = 50304, layers: int | None = None) -> dict:
    """The config.json of a Pythia shape, or of its first so many layers; it names no end of text."""
    width, whole, heads, inner = SHAPES[shape]
    layers = whole if layers is None else layers
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return GPTNeoX(vocab_size=vocab_size, intermediate_size=inner, **sizes).hf_config()


def matched_pair(
    target: str,
    draft: str = "31m",
    *,
    noise: float = 0.1,
    vocab_size: int = 50304,
    seed: int = 7,
    layers: int | None = None,
):
    """(target, draft) with equal logits but for `noise` standard deviations on the draft's output matrix.

    `layers`: of the target, where not all of its shape's; at least the draft's.
    The net's text is made chaotic by strong mixing, so that greedy decoding does not fall into a loop.
    """
    small = models.build(config(draft, vocab_size), jax.random.key(seed))
    big = models.build(config(target, vocab_size, layers), jax.random.key(seed + 1))
    rng = np.random.default_rng(seed)
    s, b = (jax.tree.map(lambda leaf: np.array(leaf), model.params) for model in (small, big))

    def redraw(tree, std):
        tree["kernel"] = rng.normal(0, std, tree["kernel"].shape).astype(np.float32)

    width, gain = small.config.hidden_size, 6.0
    s["embed"]["embedding"] = rng.normal(0, 1, s["embed"]["embedding"].shape).astype(np.float32)
    redraw(s["head"], 2 / width**0.5)
    for i in range(small.config.num_layers):
        layer = s[f"layers_{i}"]
        for name in "qkv":
            redraw(layer["attention"][name], 0.35 * gain / width**0.5)
        for tree in (layer["attention"]["out"], layer["mlp"]["up"], layer["mlp"]["down"]):
            redraw(tree, 0.5 * gain / tree["kernel"].shape[0] ** 0.5)
    _embed(s, small.config, b, big.config)
    noisy = s["head"]["kernel"] + noise * s["head"]["kernel"].std() * rng.normal(size=s["head"]["kernel"].shape)
    s["head"]["kernel"] = noisy.astype(np.float32)
    return models.CausalLM(b, big.config), models.CausalLM(s, small.config)


def _embed(s: dict, small, b: dict, big) -> None:
    """Writes the small net's function into the big one's parameters, in place."""
    times = big.hidden_size // small.hidden_size
    step = big.rotary_dim // small.rotary_dim
    if big.hidden_size % small.hidden_size or big.rotary_dim % small.rotary_dim:
        raise SystemExit("the bigger shape's width and rotary size must be multiples of the smaller one's")
    half = np.arange(small.rotary_dim // 2) * step  # the same frequencies among more of them
    rest = big.rotary_dim + np.arange(small.head_dim - small.rotary_dim)
    at = np.concatenate([half, half + big.rotary_dim // 2, rest])
    heads = slice(0, small.num_heads)
    inner = slice(0, small.intermediate_size)

    def wide(x, axis):
        return np.concatenate([x] * times, axis=axis)

    b["embed"]["embedding"] = wide(s["embed"]["embedding"], 1)
    b["head"]["kernel"] = wide(s["head"]["kernel"], 0) / times
    b["final_norm"] = {name: wide(x, 0) for name, x in s["final_norm"].items()}
    for i in range(big.num_layers):
        ours = b[f"layers_{i}"]
        for tree in (ours["attention"]["out"], ours["mlp"]["down"]):
            tree["kernel"], tree["bias"] = np.zeros_like(tree["kernel"]), np.zeros_like(tree["bias"])
        if i >= small.num_layers:
            continue
        theirs = s[f"layers_{i}"]
        for norm in ("attention_norm", "mlp_norm"):
            ours[norm] = {name: wide(x, 0) for name, x in theirs[norm].items()}
        for name in "qkv":
            scale = (big.head_dim / small.head_dim) ** 0.5 if name == "q" else 1.0
            kernel = np.zeros((big.hidden_size, big.num_heads, big.head_dim), np.float32)
            small_heads = theirs["attention"][name]["kernel"].reshape(-1, small.num_heads, small.head_dim)
            kernel[:, heads, at] = wide(small_heads, 0) * scale / times
            bias = np.zeros((big.num_heads, big.head_dim), np.float32)
            bias[heads, at] = theirs["attention"][name]["bias"].reshape(small.num_heads, -1) * scale
            ours["attention"][name] = {"kernel": kernel.reshape(big.hidden_size, -1), "bias": bias.reshape(-1)}
        kernel = np.zeros((big.num_heads, big.head_dim, big.hidden_size), np.float32)
        kernel[heads, at] = wide(theirs["attention"]["out"]["kernel"].reshape(small.num_heads, small.head_dim, -1), 2)
        out = {"kernel": kernel.reshape(-1, big.hidden_size), "bias": wide(theirs["attention"]["out"]["bias"], 0)}
        ours["attention"]["out"] = out
        ours["mlp"]["up"]["kernel"][:, inner] = wide(theirs["mlp"]["up"]["kernel"], 0) / times
        ours["mlp"]["up"]["bias"][inner] = theirs["mlp"]["up"]["bias"]
        ours["mlp"]["down"]["kernel"][inner] = wide(theirs["mlp"]["down"]["kernel"], 1)
        ours["mlp"]["down"]["bias"] = wide(theirs["mlp"]["down"]["bias"], 0)
