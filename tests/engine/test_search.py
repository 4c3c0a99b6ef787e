"""The search for the likeliest text between a prefix and a suffix, against a look at every text that there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, product

import pytest
import torch
from torch import Tensor

from dg_engine import search as search_module
from dg_engine.causal import Start
from dg_engine.covers import find_covers
from dg_engine.mixture import NOTHING, Copied
from dg_engine.model import DiffusionGemma
from dg_engine.search import End, Search, Sought
from dg_engine.spelling import Spelling
from dg_engine.suffix import SuffixHead
from dg_engine.testing import SHAPES, TINY, tiny_model, tiny_tokenizer
from dg_engine.text_tree import Text, TextTree, chain
from dg_engine.tokenizer import Tokenizer

PREFIX = [3, 50, 7, 31, 12, 30, 47, 5, 22, 19]
SUFFIX = [21, 40, 8]
ALPHABET = [21, 7, 44, 13, 58]
"""Of which the texts are, the suffix's first token among it."""
LIMIT = 4
TOKENIZER = Tokenizer(tiny_tokenizer())
NOTHING_TYPED = Spelling(TOKENIZER, "")
CAUSAL = [name for name, config in SHAPES.items() if config.use_bidirectional_attention != "all"]

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(params=range(3))
def model(request: pytest.FixtureRequest) -> DiffusionGemma:
    """Likelihoods of a random model are all alike; these differ."""
    model = tiny_model(seed=request.param)
    model.decoder.embed_tokens.weight.mul_(4.0)
    return model


def begun(model: DiffusionGemma) -> Start:
    encoded = model.encode(torch.tensor([PREFIX]), None, slice(-1, None))
    return Start(encoded.hidden[0], encoded.cache)


def sought(model: DiffusionGemma, **changes: object) -> Sought:
    ends = torch.ones(model.config.vocab_size, dtype=torch.bool)
    ends[ALPHABET] = False
    *_, covers = find_covers(model, begun(model), ends, NOTHING_TYPED, most=len(ALPHABET))
    assert covers is not None
    usual = {"limit": LIMIT, "patience": 1000, "suffix": SuffixHead(TOKENIZER, SUFFIX, "")}
    return Sought(covers=covers, spelling=NOTHING_TYPED, ends=ends, **usual | changes)  # type: ignore[arg-type]


def found(model: DiffusionGemma, **changes: object) -> tuple[Search, End]:
    search = Search(model, begun(model), sought(model, **changes))
    for _ in search.passes():
        pass
    return search, search.judged()[0]


def likelihoods(
    model: DiffusionGemma, texts: Sequence[Sequence[int]], suffix: Sequence[int], copied: Copied = NOTHING
) -> dict[tuple[int, ...], float]:
    """Of texts and of what is behind each, every token by what the model says behind all before it."""
    found = dict[tuple[int, ...], float]()
    for _, alike in groupby(texts, key=len):
        rows = [(*text, *suffix) for text in alike]
        logits = model.logits(model.encode(torch.tensor([[*PREFIX, *row] for row in rows])).hidden)
        for row, logs in zip(rows, logits.log_softmax(dim=-1)[:, len(PREFIX) - 1 :], strict=True):
            text, weight, total = row[: len(row) - len(suffix)], copied.weight, 0.0
            for place, (log, token) in enumerate(zip(logs, row, strict=False)):
                # Of the suffix only the first token may be copied: the others say how well it follows the text.
                total += float((copied.mixed(log, place, weight) if place <= len(text) else log)[token])
                weight = copied.next_weight(log, place, weight, token)
            found[text] = total
    return found


def likeliest(found: dict[tuple[int, ...], float]) -> list[int]:
    return [*max(found, key=found.__getitem__)]


def every_text() -> list[list[int]]:
    return [[*text] for length in range(LIMIT + 1) for text in product(ALPHABET, repeat=length)]


@pytest.fixture
def boundless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up, and all that is found is judged."""
    for name in ("TEXTS", "FOLLOWERS", "SHORTLIST"):
        monkeypatch.setattr(search_module, name, 10_000)
    for name in ("SLACK", "MARGIN"):
        monkeypatch.setattr(search_module, name, 1e9)


@pytest.mark.usefixtures("boundless")
@pytest.mark.parametrize("copied", [NOTHING, Copied([7, 44, 7, 58], weight=0.6, keeps=0.9)])
@pytest.mark.parametrize("suffix", [SUFFIX, SUFFIX[:1]])
def test_without_bounds_it_finds_the_likeliest_of_all_texts(
    model: DiffusionGemma, copied: Copied, suffix: list[int]
) -> None:
    search, best = found(model, copied=copied, suffix=SuffixHead(TOKENIZER, suffix, ""))
    assert best.tokens == likeliest(likelihoods(model, every_text(), suffix, copied))
    expected = likelihoods(model, every_text(), suffix[:1], copied)
    assert {tuple(end.tokens): gain for end, gain in search.found.items()} == pytest.approx(expected, abs=1e-3)
    for end in search.found:
        assert end.text is None or sum(end.text.gains) == pytest.approx(end.text.gain)


@pytest.mark.usefixtures("boundless")
@pytest.mark.parametrize("count", [2, 5])
def test_the_next_likeliest_texts_follow_the_best(model: DiffusionGemma, count: int) -> None:
    search, best = found(model)
    gains = likelihoods(model, every_text(), SUFFIX)
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    several = search.judged(count)
    assert [tuple(end.tokens) for end in several] == ranked[:count]
    assert several[0] == best


@pytest.fixture
def overlapping(boundless: None, monkeypatch: pytest.MonkeyPatch) -> Search:
    """A search for texts of tokens with several characters, of which the suffix begins with the last."""
    model = tiny_model(replace(TINY, vocab_size=TOKENIZER.vocab_size), seed=1)
    model.decoder.embed_tokens.weight.mul_(4.0)
    pairs = [token for token, text in enumerate(TOKENIZER.texts) if len(text) == 2 and text.isalpha()]
    monkeypatch.setitem(globals(), "ALPHABET", pairs[:4])
    head = TOKENIZER.texts[pairs[0]][1] + "(x"
    return found(model, suffix=SuffixHead(TOKENIZER, TOKENIZER.encode(head), head))[0]


def test_several_texts_are_different_and_end_inside_of_their_last_token_at_most(overlapping: Search) -> None:
    assert {end.overlap for end in overlapping.found} == {0, 1}
    texts = [TOKENIZER.decode(end.tokens)[: -end.overlap or None] for end in overlapping.judged(8)]
    assert len(set(texts)) == len(texts) > 1


def test_no_text_has_more_tokens_than_are_asked_for(overlapping: Search) -> None:
    assert max(len(end.tokens) for end in overlapping.found if end.overlap) == LIMIT


def test_what_the_bound_leaves_unread_cannot_be_better(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the suffix's first token; what more of the suffix may turn is what SLACK is for."""
    monkeypatch.setattr(search_module, "SLACK", 0.0)
    search, best = found(model, suffix=SuffixHead(TOKENIZER, SUFFIX[:1], ""))
    assert best.tokens == likeliest(likelihoods(model, every_text(), SUFFIX[:1]))
    assert len(search.found) < len(every_text())


@pytest.mark.usefixtures("boundless")
@pytest.mark.parametrize("length", range(1, LIMIT + 1))
def test_where_the_length_is_known_no_other_text_counts(model: DiffusionGemma, length: int) -> None:
    _, best = found(model, length=length, limit=length)
    texts = [text for text in every_text() if len(text) == length]
    assert best.tokens == likeliest(likelihoods(model, texts, SUFFIX))


def test_a_length_that_is_known_is_reached_in_as_many_passes(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "TEXTS", 2)
    search = Search(model, begun(model), sought(model, length=12, limit=12))
    assert sum(1 for _ in search.passes()) >= 12
    assert {len(end.tokens) for end in search.found} == {12}


@pytest.mark.parametrize("patience", [0, 2, 5])
def test_it_ends_where_so_many_passes_in_a_row_found_no_better_end(
    model: DiffusionGemma, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "SLACK", 1e9)
    search = Search(model, begun(model), sought(model, limit=40, patience=patience))
    found_by = [search.most, *(search.most for _ in search.passes())]
    assert found_by.index(search.most) + patience + 1 == len(found_by) - 1


@pytest.mark.usefixtures("boundless")
def test_what_is_surely_copied_is_read_in_one_pass_and_changes_nothing(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, read, passes = Copied([7, 44, 7, 58], weight=0.9, keeps=0.95), TextTree.read, list[int]()

    def noted(tree: TextTree, texts: Sequence[Text]) -> Tensor:
        passes.append(len(texts))
        return read(tree, texts)

    monkeypatch.setattr(TextTree, "read", noted)
    ahead, best = found(model, copied=copied)
    assert passes[0] == len(ALPHABET) + 3
    monkeypatch.setattr(search_module, "READ_AHEAD", 2.0)
    one_by_one, same = found(model, copied=copied)
    assert best.tokens == same.tokens
    gains = [{tuple(end.tokens): gain for end, gain in one.found.items()} for one in (ahead, one_by_one)]
    assert gains[0] == pytest.approx(gains[1], abs=1e-4)


def test_when_the_time_is_over_what_was_found_is_the_answer_and_no_pass_is_made(model: DiffusionGemma) -> None:
    search = Search(model, begun(model), sought(model, deadline=0.0))
    assert not list(search.passes())
    assert search.judged() == [search.best] == [End(None)]
    assert search.is_out_of_time


@pytest.mark.parametrize("shape", CAUSAL)
def test_a_text_of_a_tree_is_read_as_if_it_stood_alone(shape: str) -> None:
    model, numbers = tiny_model(SHAPES[shape]), torch.Generator().manual_seed(1)
    encoded = model.encode(torch.tensor([PREFIX]))
    tree, texts = TextTree(model, Start(encoded.hidden[0, -1:], encoded.cache)), [*chain(None, [9, 4])]
    before = [key.clone() for key in encoded.cache.keys]
    for count in (2, 1, 20, 700, 8):
        # The more was read, the more a layer with a window might wrongly forget.
        new = texts if count == 2 else []
        while len(new) < count:
            place, token = (int(torch.randint(high, (), generator=numbers)) for high in (16, 61))
            new.append(Text([*texts, *new][-16:][place % (len(texts) + len(new))], token))
        hidden = tree.read(new)
        for text, state in [*zip(new, hidden, strict=True)][-20:]:
            alone = model.encode(torch.tensor([PREFIX + text.tokens])).hidden[0, -1]
            torch.testing.assert_close(state, alone, rtol=1e-3, atol=1e-3)
        texts += new if count != 2 else []
    assert max(text.length for text in texts) > 5
    assert all(torch.equal(*pair) for pair in zip(before, encoded.cache.keys, strict=True))


def test_a_text_knows_its_tokens_their_gains_and_what_of_it_is_unread() -> None:
    first, second, third = chain(None, [5, 6, 7])
    for text, gain in zip((first, second, third), (-1.0, -1.5, -4.0), strict=True):
        text.gain = gain
    assert (third.tokens, third.length, first.length) == ([5, 6, 7], 3, 1)
    assert third.gains == pytest.approx([-1.0, -0.5, -2.5])
    assert third.unread == [first, second, third]
    first.places = (0,)
    assert third.unread == [second, third]
    assert math.isinf(Text(third, 8).gain)
