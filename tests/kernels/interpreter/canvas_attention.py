"""The kernel of `canvas_attention` against one head after the other."""

from __future__ import annotations

import pytest
import torch

from dg_kernels.canvas_attention import Causal, CausalRuns, VisibleRuns
from dg_kernels.canvas_attention.plan import Rule, plan
from dg_kernels.canvas_attention.reference import canvas_attention_reference
from dg_kernels.configurations import Tile
from dg_kernels.launching import run
from dg_kernels.testing import assert_agrees, random

TILE = Tile(rows=16, columns=32, depth=64, warps=4, stages=2)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize(("canvas", "keys"), [(1, 1), (17, 17), (5, 32), (16, 75)])
@pytest.mark.parametrize("batch", [1, 2])
def test_agrees_with_the_reference(
    heads: int, key_heads: int, canvas: int, keys: int, batch: int, device: torch.device, dtype: torch.dtype
) -> None:
    width = 64
    query = (0.3 * random(batch, heads, canvas, width)).to(device, dtype)
    key = (0.3 * random(batch, key_heads, keys, width, seed=1)).to(device, dtype)
    value = random(batch, key_heads, keys, width, seed=2).to(device, dtype)
    launches, found = plan(query, key, value, tile=TILE)
    run(launches)
    expected = canvas_attention_reference(query.cpu(), key.cpu(), value.cpu())
    assert_agrees(found.cpu(), expected, terms=keys)


@pytest.mark.parametrize(("width", "depth"), [(64, 64), (128, 32), (512, 128)])
def test_wide_heads_are_multiplied_in_pieces_and_mixed_in_parts(
    width: int, depth: int, device: torch.device, dtype: torch.dtype
) -> None:
    query = (0.1 * random(1, 4, 9, width)).to(device, dtype)
    key, value = (random(1, 2, 41, width, seed=seed, dtype=dtype).to(device) for seed in (1, 2))
    tile = Tile(rows=16, columns=16, depth=depth, warps=4, stages=2)
    launches, found = plan(query, key, value, tile=tile, part=max(32, width // 2))
    run(launches)
    # Scores are sums of `width` products, and an error of one moves the softmax as much.
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), key.cpu(), value.cpu()), terms=width)


def test_tensors_may_be_views_and_what_lies_behind_the_keys_is_not_read(
    device: torch.device, dtype: torch.dtype
) -> None:
    query = (0.3 * random(2, 7, 4, 64)).to(device, dtype).transpose(1, 2)
    long = random(2, 2, 50, 64, seed=1, dtype=dtype).to(device)
    long[:, :, 33:] = float("nan")
    keys, values = long[:, :, :33], long.flip(-1)[:, :, :33]
    launches, found = plan(query, keys, values, tile=TILE)
    run(launches)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu()), terms=64)


def test_large_scores_do_not_overflow(device: torch.device, dtype: torch.dtype) -> None:
    query = torch.full((1, 1, 2, 64), 20.0, device=device, dtype=dtype)
    keys = torch.full((1, 1, 40, 64), -20.0, device=device, dtype=dtype)
    keys[:, :, 37] = 20.0
    values = random(1, 1, 40, 64, dtype=dtype).to(device)
    launches, found = plan(query, keys, values, tile=TILE)
    run(launches)
    assert torch.equal(found, values[:, 0, 37:38].expand(-1, 2, -1))


@pytest.mark.parametrize("width", [64, 128])
def test_lengths_on_the_device_show_two_runs_and_nothing_else_is_read(
    width: int, device: torch.device, dtype: torch.dtype
) -> None:
    """A prefix shorter than its places, longer, none, one that ends with a tile; canvases that are not full."""
    places, canvas = 40, 11
    prefix, slots = torch.tensor([17, 90, 0, 32]), torch.tensor([11, 3, 1, 7])
    runs = VisibleRuns(prefix.to(device), slots.to(device), places)
    query = (0.3 * random(4, 4, canvas, width)).to(device, dtype)
    keys, values = (random(4, 2, places + canvas, width, seed=seed, dtype=dtype).to(device) for seed in (1, 2))
    hidden = ~runs.mask(places + canvas)[:, 0, :, None]
    for one in (keys, values):
        one.masked_fill_(hidden[:, None], float("nan"))
    launches, found = plan(query, keys, values, runs, tile=TILE)
    run(launches)
    lengths = VisibleRuns(prefix, slots, places)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), lengths), terms=width)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("canvas", [11, 32])
def test_rows_behind_one_prefix_read_it_where_it_is_and_nothing_of_one_another(
    canvas: int, splits: int, device: torch.device, dtype: torch.dtype
) -> None:
    places, rows = 40, 3
    prefix, slots = torch.tensor([17, 90, 0]), torch.tensor([canvas, 3, 1])
    query = (0.3 * random(rows, 4, canvas, 64)).to(device, dtype)
    once = [random(1, 2, places + rows * canvas, 64, seed=seed, dtype=dtype).to(device) for seed in (1, 2)]
    runs = VisibleRuns(prefix.to(device), slots.to(device), places, apart=canvas)
    seen = runs.mask(places + rows * canvas).any(dim=0)[0]
    for one in once:
        one[:, :, ~seen] = float("nan")
    keys, values = (one.expand(rows, -1, -1, -1) for one in once)
    launches, found = plan(query, keys, values, runs, tile=TILE, splits=splits)
    run(launches)
    lengths = VisibleRuns(prefix, slots, places, apart=canvas)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), lengths), terms=64)


@pytest.mark.parametrize("window", [None, 1, 9, 40])
@pytest.mark.parametrize(("cached", "queries"), [(0, 37), (50, 5), (33, 21)])
def test_a_query_sees_its_own_key_and_those_before_it_within_the_window(
    window: int | None, cached: int, queries: int, device: torch.device, dtype: torch.dtype
) -> None:
    query = (0.3 * random(2, 4, queries, 64)).to(device, dtype)
    keys, values = (random(2, 2, cached + queries, 64, seed=seed, dtype=dtype).to(device) for seed in (1, 2))
    causal = Causal(window)
    launches, found = plan(query, keys, values, causal, tile=TILE)
    run(launches)
    expected = canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), causal)
    assert_agrees(found.cpu(), expected, terms=64)


@pytest.mark.parametrize("window", [None, 1, 9, 40])
@pytest.mark.parametrize(("places", "queries"), [(16, 37), (50, 5), (33, 21)])
def test_a_query_behind_places_sees_what_is_in_them_and_its_own_within_the_window(
    window: int | None, places: int, queries: int, device: torch.device, dtype: torch.dtype
) -> None:
    prefix = torch.tensor([13, 0, 90])
    query = (0.3 * random(3, 4, queries, 64)).to(device, dtype)
    keys, values = (random(3, 2, places + queries, 64, seed=seed, dtype=dtype).to(device) for seed in (1, 2))
    for one in (keys, values):
        one[0, :, 13:places] = float("nan")
        one[1, :, :places] = float("nan")
    own = torch.full((3,), queries)
    launches, found = plan(
        query, keys, values, CausalRuns(prefix.to(device), own.to(device), places, window), tile=TILE
    )
    run(launches)
    causal = CausalRuns(prefix, own, places, window)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), causal), terms=64)


@pytest.mark.parametrize("window", [None, 9])
def test_queries_of_rows_behind_one_prefix_see_nothing_of_one_another(
    window: int | None, device: torch.device, dtype: torch.dtype
) -> None:
    places, rows, queries = 20, 3, 18
    prefix, own = torch.tensor([13, 0, 90]), torch.full((3,), queries)
    query = (0.3 * random(rows, 4, queries, 64)).to(device, dtype)
    once = [random(1, 2, places + rows * queries, 64, seed=seed, dtype=dtype).to(device) for seed in (1, 2)]
    keys, values = (one.expand(rows, -1, -1, -1) for one in once)
    given = CausalRuns(prefix.to(device), own.to(device), places, window, apart=queries)
    launches, found = plan(query, keys, values, given, tile=TILE)
    run(launches)
    causal = CausalRuns(prefix, own, places, window, apart=queries)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), causal), terms=64)


PREFIXES, CANVASES = torch.tensor([17, 90]), torch.tensor([11, 3])
RULES = (
    None,
    VisibleRuns(PREFIXES, CANVASES, 70),
    Causal(9),
    Causal(None),
    CausalRuns(PREFIXES, CANVASES, 70, 9),
    CausalRuns(PREFIXES, CANVASES, 70, None),
)


@pytest.mark.parametrize("splits", [2, 8])
@pytest.mark.parametrize("shown", RULES)
def test_programs_that_share_the_keys_find_the_same(
    splits: int, shown: Rule | None, device: torch.device, dtype: torch.dtype
) -> None:
    """Of three tiles of keys and a rest; some programs have none, and rows see none of what theirs has."""
    query = (0.3 * random(2, 4, 11, 128)).to(device, dtype)
    keys, values = (random(2, 2, 81, 128, seed=seed, dtype=dtype).to(device) for seed in (1, 2))
    given = shown
    if isinstance(shown, VisibleRuns):
        given = shown._replace(prefix=PREFIXES.to(device), canvas=CANVASES.to(device))
    if isinstance(shown, CausalRuns):
        given = shown._replace(prefix=PREFIXES.to(device), own=CANVASES.to(device))
    launches, found = plan(query, keys, values, given, tile=TILE, part=64, splits=splits)
    assert len(launches) == 2
    run(launches)
    assert_agrees(found.cpu(), canvas_attention_reference(query.cpu(), keys.cpu(), values.cpu(), shown), terms=128)
