"""Voiced sounds as text, generated: a token model's data that is no language, without files or network.

A character of U+2800 to U+28FF stands for each of the 256 mu-law codes (the curve of mu = 255, in 256 even steps), as
some speech models read sound. The sounds are synthetic: pulses at a gliding pitch through two resonators at a vowel's
formants. No speech was recorded, and nothing said of them is said of speech.
"""

from __future__ import annotations

import hashlib

import numpy as np

from adaspec_jax.errors import UserError, did_you_mean

SPLITS = ("train", "validation", "test")
RATE = 8000  # samples a second
PROMPT, ANSWER = 96, 160  # samples: 12 and 20 ms
CODES = 256
_FIRST = 0x2800
_MU = CODES - 1
# The first two formants in Hz of adult men's vowels (Peterson and Barney 1952).
_VOWELS = ((730, 1090), (660, 1720), (490, 1350), (570, 840), (640, 1190), (300, 870))
_WIDTHS = (60.0, 90.0)  # Hz
_NOISE = 0.0005  # of the loudest sample


def generate(num: int, *, seed: int, split: str) -> list[dict[str, str]]:
    """`num` sounds of a split as rows with `opening` and `rest`; the first ones do not depend on `num`.

    Splits draw from streams of their own. Raises UserError for an unknown split, or fewer than one sound.
    """
    if split not in SPLITS:
        raise UserError(f'signals has no split "{split}"{did_you_mean(split, SPLITS)}')
    if num < 1 or seed < 0:
        raise UserError(f"signals needs at least 1 sound and a seed of at least 0, not {num} and {seed}")
    texts = (text_of(codes_of(_sound(f"{split} {seed} {number}"))) for number in range(num))
    return [{"opening": text[:PROMPT], "rest": text[PROMPT:]} for text in texts]


def codes_of(samples_T: np.ndarray) -> np.ndarray:
    """[T] uint8: the mu-law codes of samples in [-1, 1]."""
    bent_T = np.sign(samples_T) * np.log1p(_MU * np.abs(samples_T)) / np.log1p(_MU)
    return np.round((bent_T + 1) / 2 * _MU).astype(np.uint8)


def samples_of(codes_T: np.ndarray) -> np.ndarray:
    """[T] float64: the samples that codes stand for; at most half a step of the curve from those they were made of."""
    bent_T = 2 * np.asarray(codes_T, np.float64) / _MU - 1
    return np.sign(bent_T) * np.expm1(np.abs(bent_T) * np.log1p(_MU)) / _MU


def text_of(codes_T: np.ndarray) -> str:
    """A character for each code."""
    return "".join(chr(_FIRST + int(code)) for code in codes_T)


def codes_in(text: str) -> np.ndarray:
    """[T] uint8: the codes of a text; UserError at a character that stands for none."""
    for place, letter in enumerate(text):
        if not 0 <= ord(letter) - _FIRST < CODES:
            raise UserError(f"character {place + 1}, {letter!r}, is no code of a signal: U+2800 to U+28FF are")
    return np.array([ord(letter) - _FIRST for letter in text], np.uint8)


def _sound(name: str) -> np.ndarray:
    """[PROMPT + ANSWER] samples in [-1, 1], by name."""
    from scipy.signal import lfilter

    # The stream of this generator, and of its uniform draws, is one that NumPy promises never to change.
    dice = np.random.RandomState(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    length = PROMPT + ANSWER
    pitch, glide = 90 + 90 * dice.uniform(), dice.uniform(-0.05, 0.05)
    # The first third is where resonators that begin at rest have not rung yet: it is left out.
    before = length // 2
    at_T = np.arange(before + length) / (before + length)
    turns_T = np.cumsum(pitch * (1 + glide * at_T) / RATE) + dice.uniform()
    sound_T = np.diff(np.floor(turns_T), prepend=np.floor(turns_T[0]))
    formants = _VOWELS[int(dice.uniform() * len(_VOWELS))]
    for hertz, width in zip(formants, _WIDTHS, strict=True):
        angle = 2 * np.pi * hertz * dice.uniform(0.92, 1.08) / RATE
        radius = np.exp(-np.pi * width / RATE)
        sound_T = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], sound_T)
    sound_T = sound_T[before:]
    sound_T = sound_T / np.max(np.abs(sound_T)) + _NOISE * dice.uniform(-1, 1, length)
    return np.clip(sound_T * dice.uniform(0.3, 0.95), -1, 1)
