"""`random_numbers` on the device: one program for some slots of a row."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["slots"])
def draw(seed, step, gamma, uniform, noise, slots, vocab_size, first, second, size: tl.constexpr):
    """Uniform numbers and tokens [R, slots]; `gamma`, `first` and `second` are SplitMix64's own."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * size + tl.arange(0, size)
    start = _mixed(tl.load(seed + row) * gamma, first, second) + tl.load(step + row) * gamma
    counter = _mixed(start, first, second) + (2 * slot + 1).to(tl.int64) * gamma
    share = _shifted(_mixed(counter, first, second), 40).to(tl.float32) * 5.9604644775390625e-08
    token = _shifted(_mixed(counter + gamma, first, second), 1) % vocab_size
    there = slot < slots
    tl.store(uniform + row * slots + slot, share, mask=there)
    tl.store(noise + row * slots + slot, token, mask=there)


@triton.jit
def _mixed(bits, first, second):
    bits = (bits ^ _shifted(bits, 30)) * first
    bits = (bits ^ _shifted(bits, 27)) * second
    return bits ^ _shifted(bits, 31)


@triton.jit
def _shifted(bits, places: tl.constexpr):
    """A right shift of int64 that fills with zeros."""
    return (bits.to(tl.uint64, bitcast=True) >> places).to(tl.int64, bitcast=True)
