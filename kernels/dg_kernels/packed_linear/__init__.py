"""Products with matrices of eight or four bits, as the projections of attention and dense MLPs are."""

from torch import Tensor
from torch.nn import functional

from dg_kernels.launching import run, served
from dg_kernels.quantised.packed import PackedWeight
from dg_kernels.quantised.rows import multiplies_e4m3

__all__ = ["packed_linear", "packed_linears"]


def packed_linear(x: Tensor, weight: PackedWeight) -> Tensor:
    """`packed_linears` with one weight."""
    (product,) = packed_linears(x, weight)
    return product


def packed_linears(x: Tensor, *weights: PackedWeight) -> list[Tensor]:
    """x [..., K] times the transpose of each weight [N, K]; returns [..., N] for each.

    On a GPU in bf16 a number is multiplied by its scale in fp32 and rounded to bf16; sums are multiplied by the factor.
    A weight that `quantises_rows` is multiplied in its own type there, if the device has it, with rows that were
    rounded to that (`quantise_rows`), once for all weights if all are such. Elsewhere, and where a group's width is no
    power of two, the matrix is dequantised first.

    Raises:
        ValueError: a weight is no matrix, or of another width than `x`.
    """
    for weight in weights:
        if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
            raise ValueError(f"weight must be [N, {x.shape[-1]}], not {list(weight.shape)}")
    if len({(weight.quantises_rows, weight.has_kernel) for weight in weights}) > 1:
        return [packed_linear(x, weight) for weight in weights]
    if served(x) and weights[0].has_kernel:
        from dg_kernels.packed_linear.plan import plan

        launches, products = plan(x, *weights, native=weights[0].quantises_rows and multiplies_e4m3(x))
        run(launches)
        return products
    return [functional.linear(x, weight.dequantised(x.dtype)) for weight in weights]
