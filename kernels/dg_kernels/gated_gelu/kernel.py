"""`gated_gelu` on the device: one program for one row."""

import triton
import triton.language as tl

from dg_kernels.quantised.kernel import store_row


@triton.jit
def gated(gate, up):
    """gelu(gate) up of fp32 numbers."""
    # gelu by tanh z = 1 - 2 / (e^2z + 1); beyond 40 the exponential adds nothing.
    twice = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    return gate * (1.0 - 1.0 / (tl.exp(tl.minimum(twice, 40.0)) + 1.0)) * up


@triton.jit
def gated_row(gate, up, result, result_scale, gate_row, up_row, width, padded: tl.constexpr, least: tl.constexpr):
    """Rows [R, width]; those of gate and up may be parts of wider ones."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, padded)
    there = column < width
    one = tl.load(gate + row * gate_row + column, mask=there, other=0.0).to(tl.float32)
    other = tl.load(up + row * up_row + column, mask=there, other=0.0).to(tl.float32)
    store_row(gated(one, other), result, result_scale, row, width, column, there, least)
