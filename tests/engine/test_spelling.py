"""Words that were begun: how they are cut off and spelt anew, and that the likeliest spellings are found."""

from __future__ import annotations

import heapq
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

import dg_engine.drafts
import dg_engine.writing
from dg_engine import covers
from dg_engine.api import Copy, Infill, InfillRequest
from dg_engine.causal import Start
from dg_engine.covers import every_cover, find_covers
from dg_engine.drafts import without
from dg_engine.engine import Engine
from dg_engine.paths import shipped_model
from dg_engine.spelling import Spelling
from dg_engine.testing import tiny_checkpoint
from dg_engine.text_tree import Text, TextTree
from dg_engine.tokenizer import SPELT_TOKENS

SOURCE = Path(heapq.__file__).read_text(encoding="utf-8")
AIM = """def aim(turret_angle, target):
    delta = target - turret_angle
    move(turret_angle)
    return """


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(shipped_model(), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", dtype=torch.float32)


def places(count: int) -> list[int]:
    """Cursors anywhere in a real file."""
    return random.Random(0).sample(range(1000, len(SOURCE)), count)


def infill(engine: Engine, prefix: str, **changes: object) -> Infill:
    request = InfillRequest(prefix=prefix, suffix="\n", extent="line")
    *_, answer = engine.infill(msgspec.structs.replace(request, **changes))
    assert isinstance(answer, Infill)
    return answer


def test_what_may_come_next_is_what_a_look_at_every_token_finds(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    texts = {token: text for token, text in enumerate(tokenizer.texts) if not tokenizer.special[token]}
    for text in {tokenizer.heal_by_spelling(SOURCE[:place]).cut for place in places(100)} - {""}:
        assert set(tokenizer.completing(text).tolist()) == {n for n, one in texts.items() if one.startswith(text)}
        proper = {n for n, one in texts.items() if one and text.startswith(one) and one != text}
        assert set(tokenizer.beginning(text).tolist()) == proper


def test_a_word_is_cut_off_where_its_tokens_begin_however_much_of_it_is_typed(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    words = [match for match in re.finditer(r"(?<=\w) [a-z]{3,}", SOURCE) if match.start() > 1000]
    assert len(words) > 500
    for word in random.Random(0).sample(words, 100):
        whole = tokenizer.encode(word[0])
        for end in range(2, len(word[0]) + 1):
            typed = word[0][:end]
            kept, cut, _ = tokenizer.heal_by_spelling(SOURCE[: word.start()] + typed)
            assert kept + cut == SOURCE[: word.start()] + typed
            cover = Spelling(tokenizer, cut).cover(whole)
            if len(tokenizer.encode(typed)) <= SPELT_TOKENS:
                assert (cut, cover) == (typed, tuple(whole[: len(cover)]))
                assert len(tokenizer.decode(whole[: len(cover) - 1])) < len(cut) <= len(tokenizer.decode([*cover]))


@pytest.mark.parametrize("text", ["def f():\n    ", "def f():\n" + 40 * " ", "\n", "", "naïveté = déjà_vu_😋"])
def test_indentation_and_halves_of_characters_are_not_cut(engine: Engine, text: str) -> None:
    kept, cut, _ = engine.tokenizer.heal_by_spelling(text)
    assert kept + cut == text
    assert "\ufffd" not in "".join(engine.tokenizer.texts[token] for token in engine.tokenizer.encode(cut))
    assert cut or not text.strip() or text.endswith((" ", "😋"))


@torch.inference_mode()
@pytest.mark.parametrize("typed", ["ret", "sel", "(", "impo"])
@pytest.mark.parametrize("shipped", [False, True])
def test_the_likeliest_spellings_are_found_with_their_shares_of_all(
    engine: Engine, tiny: Engine, typed: str, shipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine if shipped else tiny
    kept = [2, *one.tokenizer.encode("x = 1\n    ")]
    encoded = one.model.encode(torch.tensor([kept]), None, slice(-1, None))
    start = Start(encoded.hidden[0], encoded.cache)
    spelling = Spelling(one.tokenizer, typed)

    def logs(tokens: Sequence[int]) -> Tensor:
        return one.model.logits(one.model.encode(torch.tensor([[*kept, *tokens]])).hidden[0, -1]).log_softmax(dim=-1)

    slow = every_cover(logs, spelling)
    everything = math.log(math.fsum(math.exp(cover.gain) for cover in slow))
    expected = sorted((cover.gain - everything for cover in slow), reverse=True)
    no_ends = torch.zeros(one.tokenizer.vocab_size, dtype=torch.bool)

    def shares(most: int) -> list[float]:
        *_, found = find_covers(one.model, start, no_ends, spelling, most=most)
        assert found is not None
        texts = [one.tokenizer.decode([*cover.tokens]) for cover in found]
        shorter = [one.tokenizer.decode([*cover.tokens[:-1]]) for cover in found]
        assert all(text.startswith(typed) for text in texts)
        assert not any(text.startswith(typed) for text in shorter)
        return sorted((cover.gain for cover in found), reverse=True)[:most]

    assert shares(1) == pytest.approx(expected[:1], abs=0.2)  # not everything is looked at
    monkeypatch.setattr(covers, "LEAST_LIKELY", -1e9)
    monkeypatch.setattr(covers, "PARTS", 1000)
    assert shares(20) == pytest.approx(expected[:20], abs=1e-3)


@torch.inference_mode()
def test_where_one_token_spells_it_no_pass_is_needed_and_when_the_time_is_over_none_is_made(engine: Engine) -> None:
    kept = engine.tokenizer.encode("class A:\n    def f(")
    encoded = engine.model.encode(torch.tensor([[2, *kept]]), None, slice(-1, None))
    start = Start(encoded.hidden[0], encoded.cache)
    no_ends = torch.zeros(engine.tokenizer.vocab_size, dtype=torch.bool)

    def passes(typed: str, deadline: float | None = None) -> int:
        spelling = Spelling(engine.tokenizer, typed)
        *before, _ = find_covers(engine.model, start, no_ends, spelling, deadline=deadline)
        return len(before)

    assert [passes(typed) for typed in ("", ")", "self", "turr")] == [0, 0, 0, 2]
    assert passes("turr", deadline=0.0) == 0


@pytest.mark.parametrize("typed", ["t", "tu", "tur", "turr", "turret", "turret_", "turret_an"])
def test_a_word_that_the_vocabulary_has_in_parts_is_completed_wherever_it_is_interrupted(
    engine: Engine, typed: str
) -> None:
    word = "turret_angle"
    assert len(engine.tokenizer.encode("turret")) > 1
    for decoding in ("causal", "causal_fit"):
        assert infill(engine, AIM + typed, decoding=decoding).text == word.removeprefix(typed)


def test_what_is_read_stands_behind_what_was_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    read, count = TextTree.read, 0

    def watched(tree: TextTree, texts: Sequence[Text]) -> Tensor:
        nonlocal count
        for place, text in enumerate(texts):
            assert text.parent is None or text.parent.places or text.parent in texts[:place]
            count += 1
        return read(tree, texts)

    monkeypatch.setattr(TextTree, "read", watched)
    for place in places(60):
        infill(engine, SOURCE[place - 300 : place], suffix=SOURCE[place : place + 100], others=2)
    assert count > 1000


def test_a_word_that_was_begun_is_copied(engine: Engine) -> None:
    prefix = AIM.replace("turret_angle", "angle") + "tu"
    assert infill(engine, prefix, copied=Copy(text="rret_angle", matched=100)).text == "rret_angle"
    assert infill(engine, prefix).text != "rret_angle"


def test_what_is_typed_is_the_beginning_of_what_is_written(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts are cut behind what is typed, and answers; only drafts may have less of it, and are not shown then."""
    seen = list[tuple[str, str]]()

    def recorded(cut: str, text: str) -> tuple[str, bool]:
        seen.append((cut, text))
        return without(cut, text)

    for module in (dg_engine.drafts, dg_engine.writing):
        monkeypatch.setattr(module, "without", recorded)
    for place in places(30):
        answer = infill(engine, SOURCE[place - 200 : place], suffix=SOURCE[place + 9 : place + 50], max_new_tokens=4)
        cut, text = seen[-1]
        assert text == cut + answer.text or not answer.tokens
    assert len({cut for cut, _ in seen}) > 10
