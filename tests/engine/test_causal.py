"""Writing from left to right in several branches: what each writes, when they end, which beginning of them is best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dg_engine import causal
from dg_engine.beginnings import best_fit
from dg_engine.causal import Cover, Fit, Passage, Start, Written, gains_behind, write
from dg_engine.covers import find_covers
from dg_engine.model import DiffusionGemma
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead
from dg_engine.testing import tiny_model, tiny_tokenizer
from dg_engine.tokenizer import Tokenizer

PREFIX = [3, 50, 7, 31, 12, 30, 47, 5]
SUFFIX = [21, 40, 8]
LIMIT = 40
NOTHING_TYPED = Spelling(Tokenizer(tiny_tokenizer()), "")


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return tiny_model()


@pytest.fixture(scope="module")
def start(model: DiffusionGemma) -> Start:
    with torch.inference_mode():
        encoded = model.encode(torch.tensor([PREFIX]), None, slice(-1, None))
    return Start(encoded.hidden[0], encoded.cache)


@pytest.fixture(scope="module")
def ends(model: DiffusionGemma) -> Tensor:
    """Every twelfth token or so, so that branches end at different places."""
    return torch.rand(model.config.vocab_size, generator=torch.Generator().manual_seed(18)) < 1 / 12


@torch.inference_mode()
def written(
    model: DiffusionGemma, start: Start, ends: Tensor, fit: Fit | None = None, branches: int = 4
) -> list[Written]:
    *_, covers = find_covers(model, start, ends, NOTHING_TYPED, most=branches)
    assert covers is not None
    *_, texts = write(model, start, covers, ends, LIMIT, branches=branches, fit=fit)
    return texts


@torch.inference_mode()
def alone(model: DiffusionGemma, ends: Tensor, *first: int) -> list[int]:
    """What greedy decoding writes behind the prefix and some tokens, every token by a pass over all before it."""
    text = [*first]
    while len(text) < LIMIT:
        token = int(model.logits(model.encode(torch.tensor([PREFIX + text])).hidden[0, -1]).argmax())
        if bool(ends[token]):
            break
        text.append(token)
    return text


def lengths(texts: Sequence[Written]) -> list[int]:
    return [len(text.tokens) for text in texts]


def test_a_branch_writes_what_it_would_write_alone_while_others_end(
    model: DiffusionGemma, start: Start, ends: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "LEAST_LIKELY", -1e9)
    texts = written(model, start, ends)
    assert len(set(lengths(texts))) > 2
    assert [text.tokens for text in texts] == [alone(model, ends, text.tokens[0]) for text in texts]


@torch.inference_mode()
def test_behind_a_cover_that_is_there_already_texts_go_on_with_the_likeliest_tokens(
    model: DiffusionGemma, start: Start, ends: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "LEAST_LIKELY", -1e9)
    monkeypatch.setattr(causal, "MARGIN", 1e9)
    typed = int((~ends).nonzero()[5])
    logs = model.logits(model.encode(torch.tensor([[*PREFIX, typed]])).hidden[0, -1]).log_softmax(dim=-1)
    second = [token for token in logs.topk(4).indices.tolist() if not bool(ends[token])]
    assert len(second) > 2
    assert second[0] == int(logs.argmax())
    fit = Fit(SUFFIX[0], LIMIT)
    *_, texts = write(model, start, [Cover((typed,), -0.5, exact=True)], ends, LIMIT, branches=4, fit=fit)
    assert [text.tokens for text in texts] == [alone(model, ends, typed, token) for token in second]
    assert [sum(text.gains[:2]) for text in texts] == pytest.approx([-0.5 + float(logs[token]) for token in second])
    assert [text.fits[0] for text in texts] == pytest.approx([float(logs[SUFFIX[0]]), *[-math.inf] * len(texts[1:])])


@pytest.mark.parametrize("patience", [1, 3, 6])
def test_branches_go_on_no_further_than_the_patience_beyond_the_best_end_so_far(
    model: DiffusionGemma, start: Start, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "MARGIN", 1e9)
    endless = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    texts = written(model, start, endless, Fit(SUFFIX[0], patience))
    assert {text.stop_reason for text in texts} == {"converged"}
    joint = {
        end: max(sum(text.gains[:end]) + text.fits[end - 1] for text in texts) for end in range(1, lengths(texts)[0])
    }
    best = max(joint, key=joint.__getitem__)
    assert max(joint) == best + patience


def test_a_branch_that_has_fallen_behind_the_best_end_by_the_margin_is_given_up(
    model: DiffusionGemma, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    monkeypatch.setattr(causal, "MARGIN", 0.5)
    narrow = written(model, start, endless, Fit(SUFFIX[0], 1000))
    found = max(sum(text.gains[:end]) + fit for text in narrow for end, fit in enumerate(text.fits, 1))
    assert all(text.stop_reason == "converged" and sum(text.gains) + 0.5 < found for text in narrow)
    monkeypatch.setattr(causal, "MARGIN", 5.0)
    wide = written(model, start, endless, Fit(SUFFIX[0], 1000))
    assert all(more > few for more, few in zip(lengths(wide), lengths(narrow), strict=True))


@torch.inference_mode()
def test_where_the_length_is_known_only_texts_of_that_length_are_compared(
    model: DiffusionGemma, start: Start, ends: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "LEAST_LIKELY", -1e9)
    texts = written(model, start, ends)
    suffix = SuffixHead(Tokenizer(tiny_tokenizer()), SUFFIX, "")
    assert len(set(lengths(texts))) > 2
    for length in range(1, max(lengths(texts)) + 1):
        joint = {
            number: sum(text.gains[:length])
            + sum(gains_behind(model, start, [Passage([*text.tokens[:length], *suffix.tokens], length)])[0])
            for number, text in enumerate(texts)
            if len(text.tokens) >= length
        }
        found = best_fit(model, start, texts, suffix, NOTHING_TYPED, length=length)
        assert found[:2] == (max(joint, key=joint.__getitem__), length)
    assert best_fit(model, start, texts, suffix, NOTHING_TYPED, length=LIMIT + 1) == (0, len(texts[0].tokens), 0)


@torch.inference_mode()
def test_a_suffix_of_one_token_is_judged_by_that_token_alone(model: DiffusionGemma, start: Start, ends: Tensor) -> None:
    texts = written(model, start, ends, Fit(SUFFIX[0], 1000))
    joint = {
        (number, end): sum(text.gains[:end]) + fit
        for number, text in enumerate(texts)
        for end, fit in enumerate(text.fits[: len(text.tokens)], 1)
    }
    found = best_fit(model, start, texts, SuffixHead(Tokenizer(tiny_tokenizer()), SUFFIX[:1], ""), NOTHING_TYPED)
    assert found[:2] == max(joint, key=joint.__getitem__)
