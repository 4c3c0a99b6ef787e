"""Holes of several lengths at once: side by side as if alone, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dg_engine.canvas import Belief, SeededDraws, denoise_together, new_canvas
from dg_engine.policies import EntropyBound
from dg_engine.testing import SHAPES, TINY, tiny_model

LENGTHS = (1, 5, 3)
BOUND = EntropyBound(entropy_bound=2.0)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def tokens(count: int, seed: int) -> Tensor:
    return torch.randint(0, TINY.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


class Shared:
    """The random numbers of several canvases in a row, and the share of each of them."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        self.counts = list(counts)
        self.drawn: list[tuple[Tensor, ...]] = []
        self._draws = SeededDraws(TINY.vocab_size, 3)

    def uniform(self, count: int) -> Tensor:
        return self._noted(self._draws.uniform(count))

    def noise(self, count: int) -> Tensor:
        return self._noted(self._draws.noise(count))

    def _noted(self, drawn: Tensor) -> Tensor:
        self.drawn.append(drawn.split(self.counts))
        return drawn


class Replayed:
    """The share of one canvas, in the order in which it was drawn."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._drawn = iter([parts[number] for parts in shared.drawn])

    def uniform(self, count: int) -> Tensor:
        return self.noise(count)

    def noise(self, count: int) -> Tensor:
        drawn = next(self._drawn)
        assert len(drawn) == count
        return drawn


@pytest.mark.parametrize(
    ("shape", "prefix", "signal"),
    [("grouped heads, two of four experts", 3, False), ("a single expert", 23, True)],
)
def test_canvases_refined_together_are_what_each_is_alone(shape: str, prefix: int, signal: bool) -> None:
    model = tiny_model(SHAPES[shape])
    cache = model.encode(tokens(prefix, 1)[None]).cache
    allowed, banned = torch.arange(TINY.vocab_size) % 3 == 0, torch.arange(TINY.vocab_size) % 5 == 0
    suffixes = [tokens(count, 7) for count in (4, 6, 2)]
    canvases = [
        new_canvas(model, length, suffix, SeededDraws(TINY.vocab_size, 2), pinned_signal=signal)
        for length, suffix in zip(LENGTHS, suffixes, strict=True)
    ]
    shared, found, together = Shared(LENGTHS), list[list[Belief]](), canvases
    for temperature in (0.8, 0.6, 0.4):
        refined = denoise_together(
            model,
            cache,
            together,
            temperature=temperature,
            acceptance=BOUND,
            draws=shared,
            first_allowed=allowed,
            banned=banned,
        )
        together = [canvas for canvas, _ in refined]
        found.append([belief for _, belief in refined])

    for number, alone in enumerate(canvases):
        draws, canvas = Replayed(shared, number), alone
        for step, temperature in enumerate((0.8, 0.6, 0.4)):
            ((canvas, belief),) = denoise_together(
                model,
                cache,
                [canvas],
                temperature=temperature,
                acceptance=BOUND,
                draws=draws,
                first_allowed=allowed,
                banned=banned,
            )
            same(found[step][number], belief)
        assert torch.equal(together[number].tokens, canvas.tokens)
        assert together[number].tokens[LENGTHS[number] :].tolist() == suffixes[number].tolist()


def same(one: Belief, other: Belief) -> None:
    assert one.argmax.tolist() == other.argmax.tolist()
    assert one.accepted.tolist() == other.accepted.tolist()
    torch.testing.assert_close(one.confidence, other.confidence, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.entropy, other.entropy, rtol=1e-4, atol=1e-4)
