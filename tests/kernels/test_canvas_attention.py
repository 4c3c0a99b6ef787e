"""`canvas_attention` against one head after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dg_kernels import Causal, CausalRuns, VisibleRuns, canvas_attention
from dg_kernels.canvas_attention.reference import canvas_attention_reference
from dg_kernels.testing import assert_agrees, random


def tensors(batch: int, heads: int, groups: int, prefix: int, canvas: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    keys = prefix + canvas
    return (
        0.3 * random(batch, heads, canvas, width),
        0.3 * random(batch, groups, keys, width, seed=1),
        random(batch, groups, keys, width, seed=2),
    )


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 63])
@pytest.mark.parametrize("canvas", [1, 17])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_the_reference(heads: int, groups: int, prefix: int, canvas: int, masked: bool) -> None:
    given = tensors(2, heads, groups, prefix, canvas, 16)
    mask = None
    if masked:
        mask = random(2, canvas, prefix + canvas, seed=5) > 0
        mask[..., -1] = True
    assert_agrees(canvas_attention(*given, mask), canvas_attention_reference(*given, mask), terms=prefix + canvas)


def test_keys_may_be_part_of_a_longer_buffer() -> None:
    query, keys, values = tensors(1, 4, 2, 9, 4, 16)
    long_keys, long_values = (torch.cat((one, random(1, 2, 20, 16)), dim=2)[:, :, :13] for one in (keys, values))
    assert_agrees(canvas_attention(query, long_keys, long_values), canvas_attention(query, keys, values), terms=13)


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 2), (6, 1)])
@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_that_of_the_reference(heads: int, groups: int, prefix: int, masked: bool) -> None:
    query, keys, values = (one.double().requires_grad_() for one in tensors(2, heads, groups, prefix, 7, 16))
    mask = None
    if masked:
        mask = random(2, 7, prefix + 7, seed=5) > 0
        mask[..., -1] = True
    weight = random(2, 7, heads * 16, seed=6).double()
    given = query, keys, values
    found = torch.autograd.grad((canvas_attention(*given, mask) * weight).sum(), given)
    wanted = torch.autograd.grad((_in_double(*given, mask) * weight).sum(), given)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def _in_double(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The reference's sum in one expression that keeps fp64 and its gradient."""
    keys, values = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (keys, values))
    scores = query @ keys.mT
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)


def test_training_and_inference_agree() -> None:
    given = tensors(2, 4, 2, 5, 7, 16)
    trained = canvas_attention(given[0].clone().requires_grad_(), *given[1:])
    assert_agrees(trained.detach(), canvas_attention(*given), terms=12)


def test_a_row_that_sees_nothing_has_a_finite_gradient() -> None:
    query, keys, values = (tensor.requires_grad_() for tensor in tensors(1, 2, 1, 0, 3, 8))
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    mask[:, 2] = False
    mixed = canvas_attention(query, keys, values, mask)
    gradients = torch.autograd.grad(mixed[:, :2].sum(), (query, keys, values))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_a_masked_key_has_no_influence() -> None:
    query, keys, values = tensors(1, 2, 1, 5, 3, 8)
    mask = torch.ones(1, 3, 8, dtype=torch.bool)
    mask[..., 2] = False
    before = canvas_attention(query, keys, values, mask)
    values[:, :, 2] = 1e6
    assert torch.equal(canvas_attention(query, keys, values, mask), before)


def test_heads_that_do_not_divide_and_a_mask_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="2 key heads do not divide 3 query heads"):
        canvas_attention(*tensors(1, 3, 2, 4, 4, 8))
    with pytest.raises(ValueError, match="mask must be 8 wide, not 4"):
        canvas_attention(*tensors(1, 2, 2, 4, 4, 8), torch.ones(1, 4, 4, dtype=torch.bool))


def test_two_runs_of_keys_are_the_mask_that_shows_them() -> None:
    query, keys, values = tensors(4, 4, 2, 20, 6, 16)
    runs = VisibleRuns(torch.tensor([3, 0, 20, 31]), torch.tensor([6, 1, 4, 6]), places=20)
    assert runs.mask(26)[:, 0].sum(dim=1).tolist() == [9, 1, 24, 26]
    expected = canvas_attention_reference(query, keys, values, runs)
    assert_agrees(canvas_attention(query, keys, values, runs), expected, terms=26)
    shown = runs.mask(26).expand(-1, 6, -1)
    assert_agrees(canvas_attention(query, keys, values, shown), expected, terms=26)


def test_rows_behind_one_prefix_each_see_it_and_their_own_canvas() -> None:
    places, canvas, rows = 20, 6, 3
    query, keys, values = tensors(rows, 4, 2, places + (rows - 1) * canvas, canvas, 16)
    shared = [one[:1].expand(rows, -1, -1, -1) for one in (keys, values)]
    runs = VisibleRuns(torch.tensor([3, 20, 31]), torch.tensor([6, 1, 4]), places, apart=canvas)
    found = canvas_attention(query, shared[0], shared[1], runs)
    assert_agrees(found, canvas_attention_reference(query, shared[0], shared[1], runs), terms=38)
    for row in range(rows):
        first = places + row * canvas
        key, value = (
            torch.cat((one[:, :, :places], one[:, :, first : first + canvas]), dim=2)[row, None] for one in shared
        )
        alone = VisibleRuns(runs.prefix[row, None], runs.canvas[row, None], places)
        assert_agrees(found[row, None], canvas_attention_reference(query[row, None], key, value, alone), terms=26)


@pytest.mark.parametrize("window", [None, 1, 4])
def test_causal_is_the_mask_that_shows_the_same(window: int | None) -> None:
    given = tensors(2, 4, 2, 9, 5, 16)
    expected = canvas_attention_reference(*given, Causal(window))
    assert_agrees(canvas_attention(*given, Causal(window)), expected, terms=14)
    shown = Causal(window).mask(5, 14, given[0].device)
    assert shown[0].sum(dim=1).tolist() == [min(count, window or 14) for count in range(10, 15)]
    assert_agrees(canvas_attention(*given, shown), expected, terms=14)


@pytest.mark.parametrize("window", [None, 1, 4])
def test_causal_behind_places_is_causal_behind_what_is_in_them(window: int | None) -> None:
    query, keys, values = tensors(3, 4, 2, 9, 5, 16)
    runs = CausalRuns(torch.tensor([0, 7, 31]), torch.tensor([5, 1, 3]), places=9, window=window)
    expected = canvas_attention_reference(query, keys, values, runs)
    for row, known in enumerate((0, 7, 9)):
        key, value = (torch.cat((one[row, None, :, :known], one[row, None, :, 9:]), dim=2) for one in (keys, values))
        alone = canvas_attention_reference(query[row, None], key, value, Causal(window))
        torch.testing.assert_close(expected[row, None], alone, rtol=0, atol=0)
    assert_agrees(canvas_attention(query, keys, values, runs), expected, terms=14)
    assert_agrees(canvas_attention(query, keys, values, runs.mask(5, 14)), expected, terms=14)


def test_rows_behind_one_prefix_are_causal_each_for_itself() -> None:
    places, own, rows = 9, 5, 3
    query, keys, values = tensors(rows, 4, 2, places + (rows - 1) * own, own, 16)
    shared = [one[:1].expand(rows, -1, -1, -1) for one in (keys, values)]
    runs = CausalRuns(torch.tensor([0, 7, 31]), torch.full((rows,), own), places, window=6, apart=own)
    expected = canvas_attention_reference(query, shared[0], shared[1], runs)
    assert_agrees(canvas_attention(query, shared[0], shared[1], runs), expected, terms=24)
    for row in range(rows):
        mine = slice(places + row * own, places + (row + 1) * own)
        alone = [torch.cat((one[:1, :, :places], one[:1, :, mine]), dim=2) for one in (keys, values)]
        rule = CausalRuns(runs.prefix[row, None], runs.own[row, None], places, window=6)
        found = canvas_attention_reference(query[row, None], alone[0], alone[1], rule)
        torch.testing.assert_close(found, expected[row, None], rtol=0, atol=0)


def test_the_last_query_of_a_run_sees_all_before_it() -> None:
    query, keys, values = tensors(2, 4, 2, 9, 5, 16)
    runs = CausalRuns(torch.tensor([3, 9]), torch.tensor([5, 2]), places=9, window=None)
    found = canvas_attention_reference(query, keys, values, runs)
    last = runs.own - 1
    own = query[torch.arange(2), :, last][:, :, None]
    alone = canvas_attention_reference(own, keys, values, runs.of_last)
    torch.testing.assert_close(alone[:, 0], found[torch.arange(2), last], rtol=0, atol=1e-6)
