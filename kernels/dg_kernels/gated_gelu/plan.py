"""The launch of `gated_gelu`."""

from __future__ import annotations

from torch import Tensor

from dg_kernels.gated_gelu.kernel import gated_row
from dg_kernels.launching import Argument, Launch, padded
from dg_kernels.quantised.plan import blank_rows, shaped, stored_in
from dg_kernels.quantised.rows import LEAST_SCALE, Operand

_WARPS = 8


def plan(gate: Tensor, up: Tensor, *, rounds: bool = False) -> tuple[list[Launch], Operand]:
    """One launch, and the [..., I] that it will fill. Rows may be parts of wider ones."""
    rows = [_rows(one) for one in (gate, up)]
    count, width = rows[0].shape
    result = blank_rows(rows[0], rounds=rounds)
    arguments: dict[str, Argument] = {
        "gate": rows[0],
        "up": rows[1],
        **stored_in("result", result, "result_scale"),
        "gate_row": rows[0].stride(0),
        "up_row": rows[1].stride(0),
        "width": width,
    }
    constants = {"padded": padded(width, 32), "least": LEAST_SCALE}
    launches = [Launch(gated_row, (count,), arguments, constants, warps=_WARPS, stages=1)]
    return launches, shaped(result, gate.shape)


def _rows(x: Tensor) -> Tensor:
    """[N, I] with the numbers of a row side by side; a copy only where they are not."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
