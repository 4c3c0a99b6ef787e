"""Writing from left to right: greedy decoding, against one pass over everything for each token."""

from __future__ import annotations

import pytest
import torch

from dg_engine.causal import Cover, Start, Written, write
from dg_engine.model import DiffusionGemma
from dg_engine.testing import tiny_model

PREFIX = [3, 50, 7, 31, 12, 30, 47, 5]
LIMIT = 20

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return tiny_model()


def written(model: DiffusionGemma, cover: Cover, *ends: int, limit: int = LIMIT) -> list[tuple[list[int], Written]]:
    """The tokens after each pass, and the text in the end."""
    encoded = model.encode(torch.tensor([PREFIX]), None, slice(-1, None))
    ending = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    ending[[*ends]] = True
    texts = write(model, Start(encoded.hidden[0], encoded.cache), cover, ending, limit)
    return [([*text.tokens], text) for text in texts]


def alone(model: DiffusionGemma, *first: int) -> tuple[list[int], list[float]]:
    """What is likeliest behind the prefix and some tokens, every token by a pass over all before it."""
    text, gains = [*first], list[float]()
    while len(text) < LIMIT:
        logs = model.logits(model.encode(torch.tensor([PREFIX + text])).hidden[0, -1]).log_softmax(dim=-1)
        text.append(int(logs.argmax()))
        gains.append(float(logs.max()))
    return text, gains


@pytest.mark.parametrize("cover", [(17,), (17, 4, 9)])
def test_each_token_is_the_likeliest_behind_all_before_it(model: DiffusionGemma, cover: tuple[int, ...]) -> None:
    tokens, gains = alone(model, *cover)
    *growing, (last, text) = written(model, Cover(cover, -0.5))
    assert (last, text.stop_reason) == (tokens, "max_new_tokens")
    assert text.gains == pytest.approx([-0.5, *[0.0] * (len(cover) - 1), *gains], abs=1e-4)
    assert [shown for shown, _ in growing] == [tokens[:end] for end in range(len(cover), LIMIT)]


def test_a_text_ends_before_the_token_that_ends_it(model: DiffusionGemma) -> None:
    tokens, gains = alone(model, 17)
    place = next(place for place in range(4, LIMIT) if tokens[place] not in tokens[:place])
    _, text = written(model, Cover((17,), -0.5), tokens[place])[-1]
    assert (text.tokens, text.stop_reason) == (tokens[:place], "end_of_sequence")
    assert text.gains == pytest.approx([-0.5, *gains[:place]], abs=1e-4)


def test_a_cover_that_ends_is_no_text_and_one_that_is_too_long_is_cut(model: DiffusionGemma) -> None:
    ((nothing, text),) = written(model, Cover((17,), -0.5), 17)
    assert (nothing, text.gains, text.stop_reason) == ([], [-0.5], "end_of_sequence")
    ((some, text),) = written(model, Cover((17, 4, 9), -0.5), limit=2)
    assert (some, text.gains, text.stop_reason) == ([17, 4], [-0.5, 0.0], "max_new_tokens")
