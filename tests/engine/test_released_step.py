"""A step and a prefill of the released model's shape, routed as on a GPU: which kernel is launched for what, how often.

The tensors have shapes and types but no memory, so all of it runs anywhere in seconds, with the plans that run there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dg_engine.chunks import CHUNK_BUCKETS, Told, static_encode
from dg_engine.full_size import weights as weights_module
from dg_engine.full_size.shapes import RELEASED
from dg_engine.full_size.weights import BITS, pack_layers
from dg_engine.infill import Hole
from dg_engine.joined import join
from dg_engine.model import DiffusionGemma, Masks
from dg_engine.policies import Denoising
from dg_engine.prefix_cache import PrefixCache, Seen
from dg_engine.prefix_store import GPU_PREFILL_CHUNK
from dg_engine.rows import Row, first_state, rules_of, shape_of
from dg_engine.static_canvas import Rules, Shape, State, blank_places, static_step
from dg_kernels import Causal, PackedWeight
from dg_kernels.launching import Device, planned_for
from dg_kernels.testing import OPERATIONS

if TYPE_CHECKING:
    from dg_kernels.aot import Architecture

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is for Linux")

H200 = Device("NVIDIA H200", 132)
PREFIX = 2048
SLIDING, FULL = RELEASED.layer_types.count("sliding_attention"), RELEASED.layer_types.count("full_attention")
LAYERS = SLIDING + FULL
PRODUCTS = {"linear", "matmul", "mm", "addmm", "bmm", "baddbmm"}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what PyTorch computes on the device by itself: matrix products, attentions, and all else."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name, result = str(func).split(".")[1], func(*args, **(kwargs or {}))
        if name in PRODUCTS:
            self.made["product"] += 1
        elif "attention" in name:
            self.made["attention"] += 1
        elif name not in ALLOCATIONS and writes(name, args, result):
            self.made["other"] += 1
        return result


def writes(name: str, args: Any, result: Any) -> bool:
    """Whether an operation fills memory of the device: not one that gives back a part of what it was given."""
    first = result[0] if isinstance(result, list | tuple) else result
    if not isinstance(first, Tensor) or not first.is_meta or name == "detach_":
        return False
    given = args[0] if args and isinstance(args[0], Tensor) else None
    return name.endswith("_") or given is None or given.untyped_storage()._cdata != first.untyped_storage()._cdata


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every launch, in order, of operations that take tensors without memory for those of a GPU."""
    found: list[Any] = []
    for name in OPERATIONS:
        module = importlib.import_module(f"dg_kernels.{name}")
        monkeypatch.setattr(module, "served", lambda *given, **more: all(on_gpu(one, **more) for one in given))
        monkeypatch.setattr(module, "run", found.extend)
        if hasattr(module, "multiplies_e4m3"):
            monkeypatch.setattr(module, "multiplies_e4m3", lambda x: True)
    with planned_for(H200):
        yield found


def on_gpu(tensor: Tensor, dtype: torch.dtype = torch.bfloat16) -> bool:
    """As `served` with a GPU and triton, without a gradient."""
    return tensor.is_meta and tensor.dtype is dtype and not tensor.requires_grad


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def without_memory(format_: str, shape: tuple[int, ...], *_: Any) -> PackedWeight:
    """In place of `random_weight`."""
    *rows, columns = shape
    factor = empty(*rows, dtype=torch.float32)
    if format_ == "fp8":
        return PackedWeight("e4m3", empty(*shape, dtype=torch.float8_e4m3fn), None, factor)
    if format_ == "nvfp4":
        scale = empty(*rows, columns // 16, dtype=torch.float8_e4m3fn)
        return PackedWeight("e2m1", empty(*rows, columns // 2, dtype=torch.uint8), scale, factor)
    values = empty(*rows, columns // 8, dtype=torch.int32)
    return PackedWeight("int4", values, empty(*rows, columns // 32), factor)


@pytest.fixture
def model(format_: str, monkeypatch: pytest.MonkeyPatch) -> DiffusionGemma:
    with torch.device("meta"):
        model = DiffusionGemma(RELEASED).bfloat16().requires_grad_(requires_grad=False)
    if format_ != "bf16":
        monkeypatch.setattr(weights_module, "random_weight", without_memory)
        pack_layers(model, format_, torch.Generator())
    join(model)
    causal = Masks(Causal(None), Causal(RELEASED.window))
    monkeypatch.setattr(model, "_encoder_masks", lambda *_: causal)
    return model.eval()


class Asked(NamedTuple):
    """What is filled at once."""

    rows: int
    """Behind one prefix, or each behind its own, as the shape says."""
    hole: int
    suffix: int
    shape: tuple[int, int, int, int, int]


ASKED = {
    "a line": Asked(1, 32, 32, (1, 64, 32, 4096, 1)),
    "the lengths of a line": Asked(8, 32, 32, (8, 64, 32, 4096, 1)),
    "those that go on": Asked(4, 32, 32, (4, 64, 32, 4096, 1)),
    "the lengths of a block": Asked(8, 64, 32, (8, 128, 64, 4096, 1)),
    "the lengths of a long block": Asked(4, 128, 32, (4, 256, 128, 4096, 1)),
    "two users": Asked(2, 64, 32, (2, 128, 64, 4096, 2)),
    "a longer line": Asked(1, 96, 32, (1, 128, 128, 4096, 1)),
    "a whole canvas": Asked(1, 256, 0, (1, 256, 256, 4096, 1)),
}


CASES = [
    *((format_, "the lengths of a line") for format_ in BITS if format_ != "fp8"),
    *(("fp8", asked) for asked in ASKED),
]
"""What is launched for a weight does not depend on the canvas."""


def given(model: DiffusionGemma, asked: Asked) -> tuple[DiffusionGemma, Shape, list[Seen], Rules, State]:
    """What a step is given."""
    heads = [RELEASED.head_shape(layer) for layer in range(LAYERS)]
    keys = tuple(empty(1, count, PREFIX, width) for count, width in heads)
    mask = empty(RELEASED.vocab_size, dtype=torch.bool)
    caches = [PrefixCache(keys, keys) for _ in range(asked.shape[-1])]
    row = Row(
        cache=caches[0],
        suffix=empty(asked.suffix, dtype=torch.long),
        hole=Hole(initial=asked.hole, longest=asked.hole, ends=mask, filler=1, banned=mask, pinned_signal=False),
        plan=Denoising(),
        seed=3,
    )
    rows = [replace(row, cache=caches[number % len(caches)]) for number in range(asked.rows)]
    shape = shape_of(rows)
    assert shape == asked.shape
    seen = blank_places(model, shape.prefix, shape.prefixes, shape.behind)
    return model, shape, seen, rules_of(model, shape, rows), first_state(model, shape, rows)


EXPERTS = {"bf16": "plain", "fp8": "native", "nvfp4": "e2m1", "int4": "int4"}


def expected_launches(format_: str) -> Counter[str]:
    """Of one pass through all layers, with what a product takes its weight for."""
    kind = EXPERTS[format_]
    found = Counter(
        {
            "norm_and_turn": LAYERS,
            "attend, 256": SLIDING,
            "attend, 512": FULL,
            "attention_row": LAYERS,
            "feed_forward_row": LAYERS,
            "choose": LAYERS,
            "sort_pairs": LAYERS,
            f"gate_up_product, {kind}": LAYERS,
            f"down_product, {kind}": LAYERS,
            "gated_row": LAYERS,
        }
    )
    if format_ != "bf16":
        # Queries, keys and values as one; outputs; gate and up as one; down.
        found["linear_product, native"] = 4 * LAYERS
        # For outputs, and for the projections of the first layer: all others read what is rounded where it is made.
        found["round_rows"] = LAYERS + 1
    if kind == "native":
        # Between the experts' products.
        found["round_rows"] += LAYERS
    return found


DECODER = Counter({"draw": 1, "gated_row": 1, "tile_statistics": 1, "merge_tiles": 1, "scale_tiles": 1})
"""The randomness of the step, self-conditioning before the layers, and the head behind them."""
OTHERS = 121
"""What PyTorch computes of a step beside products: embeddings, the first norms, and what becomes of the canvas."""
LAUNCHES = {"bf16": (300, 274), "fp8": (481, 154), "nvfp4": (451, 154), "int4": (451, 154)}
"""Of a step of a whole canvas in all: by Triton, and by PyTorch."""


def names(launched: Sequence[Any]) -> Counter[str]:
    """How often each kernel; attention by the width of its heads, products by the kind of their weight."""
    told = (one.constants.get("kind") or (one.constants.get("shown") and one.constants["width"]) for one in launched)
    return Counter(
        one.kernel.fn.__name__ + (f", {more}" if more else "") for one, more in zip(launched, told, strict=True)
    )


@pytest.mark.parametrize(("format_", "asked"), CASES)
@torch.inference_mode()
def test_every_operation_of_a_step_goes_to_the_kernel_that_was_made_for_it(
    format_: str, asked: str, model: DiffusionGemma, launched: list[Any]
) -> None:
    step = given(model, ASKED[asked])
    launched.clear()
    with Operations() as operations:
        after = static_step(*step)
    found = names(launched)
    merged = found.pop("merge_splits", 0)
    rows, canvas, hole = ASKED[asked].shape[:3]
    assert found == expected_launches(format_) + DECODER
    assert merged == sum(one.constants.get("splits", 1) > 1 for one in launched if "shown" in one.constants)
    # The router, self-conditioning's two products and the mean embedding; in bf16 the projections too.
    projections = 4 * LAYERS if format_ == "bf16" else 0
    # Of several rows, the first slots of each do not lie behind one another: they are copied, twice.
    others = OTHERS + 2 * (rows > 1 and hole < canvas)
    assert operations.made == {"product": LAYERS + 2 + 1 + projections, "other": others}
    assert {part.device.type for part in after} == {"meta"}
    assert after.signal.shape == (rows, canvas, RELEASED.hidden_size)
    assert (after.tokens.dtype, after.signal.dtype) == (torch.int64, torch.bfloat16)


@pytest.mark.parametrize("format_", BITS)
@torch.inference_mode()
def test_a_step_is_so_many_launches(format_: str, model: DiffusionGemma, launched: list[Any]) -> None:
    step = given(model, ASKED["a whole canvas"])
    launched.clear()
    with Operations() as operations:
        static_step(*step)
    assert (len(launched), operations.made.total()) == LAUNCHES[format_]


@pytest.mark.parametrize("format_", BITS)
@torch.inference_mode()
def test_every_operation_of_a_prefill_goes_to_the_kernel_that_was_made_for_it(
    format_: str, model: DiffusionGemma, launched: list[Any]
) -> None:
    cache = model.encode(empty(1, GPU_PREFILL_CHUNK, dtype=torch.long), None, slice(-1, None)).cache
    with Operations() as operations:
        launched.clear()
        hidden, cache = model.encode(empty(1, GPU_PREFILL_CHUNK, dtype=torch.long), cache, slice(-1, None))
    assert (hidden.shape, cache.length) == ((1, 1, RELEASED.hidden_size), 2 * GPU_PREFILL_CHUNK)
    found = names(launched)
    found.pop("merge_splits", 0)
    # Of the last layer the last token alone is read, by a mask that no kernel takes.
    expected = expected_launches(format_)
    expected["attend, 512"] -= 1
    assert found == expected
    projections = 4 * LAYERS if format_ == "bf16" else 0
    assert (operations.made["product"], operations.made["attention"]) == (LAYERS + projections, 1)


@functools.cache
def compiled_for(architecture: Architecture) -> set[tuple[object, ...]]:
    from dg_kernels.aot import launches, specialisation

    return {specialisation(launch) for _, launch in launches(architecture)}


@pytest.mark.parametrize("capability", [89, 90, 120])
@pytest.mark.parametrize("format_", BITS)
@torch.inference_mode()
def test_what_is_launched_is_compiled_ahead_of_time(
    format_: str, capability: int, model: DiffusionGemma, launched: list[Any]
) -> None:
    """Steps; chunks of a prefix that are whole, odd, of one token, and padded; texts that are ranked side by side."""
    from dg_kernels.aot import ARCHITECTURES, specialisation

    architecture = next(one for one in ARCHITECTURES if one.capability == capability)
    with planned_for(architecture.device):
        for stored, asked in CASES:
            if stored == format_:
                static_step(*given(model, ASKED[asked]))
        cache = None
        for tokens in (GPU_PREFILL_CHUNK, GPU_PREFILL_CHUNK, 1, 37, 1, 2, GPU_PREFILL_CHUNK, 333):
            cache = model.encode(empty(1, tokens, dtype=torch.long), cache, slice(-1, None)).cache
        assert cache is not None
        shown = empty(1, 9, cache.length + 9, dtype=torch.bool)
        model.encode_rows(empty(1, 9, dtype=torch.long), cache, Masks(shown, shown), torch.arange(9, device="meta"))
        for rows, slots in (*((1, slots) for slots in CHUNK_BUCKETS), (5, 16), (8, 64)):
            own, seen = empty(rows, dtype=torch.long), blank_places(model, 4096, 1, rows * slots)
            told = Told(empty(rows, slots, dtype=torch.long), own, own)
            static_encode(model, seen, told, last=rows == 1)
    compiled = compiled_for(architecture)
    missing = {specialisation(launch): launch for launch in launched if specialisation(launch) not in compiled}
    assert not [(one.kernel.fn.__name__, *one.constants.items()) for one in missing.values()]
