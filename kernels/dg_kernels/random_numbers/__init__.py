"""The randomness of a denoising step: SplitMix64's mixing function (Steele, Lea, Flood, OOPSLA 2014) over a counter."""

from __future__ import annotations

import torch
from torch import Tensor

from dg_kernels.launching import run, served

__all__ = ["random_numbers", "signed"]


def random_numbers(seed: Tensor, step: Tensor, slots: int, vocab_size: int) -> tuple[Tensor, Tensor]:
    """A function of seed, step and slot, whatever the batch and the canvas; everywhere the same bits.

    Args:
        seed: [B] int64.
        step: [B] int64, the number of the step; -1 for the noise before the first.
        slots: C.
        vocab_size: bound of the noise.

    Returns:
        [B, C] fp32 in [0, 1), and [B, C] token ids, both uniform.

    Raises:
        ValueError: there is not one step for each seed.
    """
    if seed.shape != step.shape:
        raise ValueError(f"step must be {list(seed.shape)}, not {list(step.shape)}")
    if served(seed, step, dtype=torch.int64):
        from dg_kernels.random_numbers.plan import plan

        launches, uniform, noise = plan(seed, step, slots, vocab_size)
        run(launches)
        return uniform, noise
    row = _mixed(_mixed(seed * GAMMA) + step * GAMMA)
    counter = torch.arange(1, 2 * slots + 1, device=seed.device) * GAMMA
    bits = _mixed(row[:, None] + counter)
    return _shifted(bits[:, ::2], 40).float() * 2.0**-24, _shifted(bits[:, 1::2], 1) % vocab_size


def _mixed(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * FIRST
    bits = (bits ^ _shifted(bits, 27)) * SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """A right shift that fills with zeros; torch's own fills with the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def signed(number: int) -> int:
    """The int64 with the last 64 bits of a number."""
    return (number + 2**63) % 2**64 - 2**63


GAMMA, FIRST, SECOND = signed(0x9E3779B97F4A7C15), signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)
"""SplitMix64's increment and factors."""
