"""Products with matrices of eight or four bits, as the projections of attention and dense MLPs are."""

from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import Operand, RoundedRows, multiplied_in_e4m3

__all__ = ["packed_linear"]


def packed_linear(x: Operand, weight: PackedWeight) -> Tensor:
    """x [..., K] times the transpose of a weight [N, K]; returns [..., N].

    On a GPU in bf16 a number is multiplied by its scale in fp32 and rounded to bf16; sums are multiplied by the factor.
    A weight that `quantises_rows` is multiplied in its own type there, if the device has it, with rows that are rounded
    to that (`quantise_rows`), unless they were already. Elsewhere, and where a group's width is no power of two, the
    matrix is dequantised first.

    Raises:
        ValueError: the weight is no matrix, or of another width than `x`, or does not take rounded rows.
    """
    if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight must be [N, {x.shape[-1]}], not {list(weight.shape)}")
    native = multiplied_in_e4m3(x, quantises=weight.quantises_rows)
    if isinstance(x, RoundedRows) or (served(x) and weight.has_kernel):
        from dg_kernels.packed_linear.plan import plan

        launches, product = plan(x, weight, native=native)
        run(launches)
        return product
    return functional.linear(x, weight.dequantised(x.dtype))
