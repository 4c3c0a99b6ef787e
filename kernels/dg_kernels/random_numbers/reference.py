"""The truth for `random_numbers`: SplitMix64 as published, number by number, in Python's integers."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


def random_numbers_reference(seed: Tensor, step: Tensor, slots: int, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Same shapes as `random_numbers`."""
    uniform, noise = torch.empty(len(seed), slots), torch.empty(len(seed), slots, dtype=torch.int64)
    for row, (own, number) in enumerate(zip(seed.tolist(), step.tolist(), strict=True)):
        start = _mixed(_mixed(own * _GAMMA) + number * _GAMMA)
        for slot in range(slots):
            uniform[row, slot] = (_mixed(start + (2 * slot + 1) * _GAMMA) >> 40) / 2**24
            noise[row, slot] = (_mixed(start + (2 * slot + 2) * _GAMMA) >> 1) % vocab_size
    return uniform, noise


def _mixed(bits: int) -> int:
    bits &= _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31
