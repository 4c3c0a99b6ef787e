"""Text block by block: transformers' `generate` token for token, where it ends, and what is kept of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from dg_engine import checkpoint
from dg_engine import rows as rows_module
from dg_engine.api import Block, Draft, GenerateRequest
from dg_engine.blocks import Finished, Writing, write_blocks
from dg_engine.canvas import Belief, Draws, SeededDraws
from dg_engine.cli import main
from dg_engine.device_loop import DeviceLoop
from dg_engine.drafts import Transcript, pieces
from dg_engine.engine import Engine
from dg_engine.errors import CheckpointError, RequestError
from dg_engine.infill import Filling, Hole, fill
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.paths import shipped_model
from dg_engine.policies import Denoising, EntropyBound, StableAndConfident
from dg_engine.prefix_store import PREFILL_CHUNK, PrefixEncoder
from dg_engine.rows import Row
from dg_engine.scaffold import CHAT_TOKENS
from dg_engine.settings import read_ends
from dg_engine.testing import (
    SPECIAL_TOKENS,
    TINY,
    KeptDrafts,
    RecordedDraws,
    record_draws,
    tiny_checkpoint,
    tiny_model,
    tiny_tokenizer,
)
from dg_engine.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", minversion="5.23.0")

SLOTS = TINY.canvas_length
PROMPT = torch.randint(4, TINY.vocab_size, (23,), generator=torch.Generator().manual_seed(5)).tolist()
NEVER = -1
"""No token: the text does not end."""
PLANS = {
    "the model's own defaults": Denoising(),
    "stops that differ": Denoising(
        max_denoising_steps=9,
        acceptance=EntropyBound(entropy_bound=2.0),
        stopping=StableAndConfident(stability_threshold=1, confidence_threshold=0.5),
    ),
}


pytestmark = pytest.mark.usefixtures("without_gradients")


def settling_model() -> DiffusionGemma:
    """Surer than a random model, with layers that change less: it settles on a draft, as a trained one does.

    At the defaults a random one renoises for 48 steps, until rounding errors have become other tokens.
    """
    model = tiny_model()
    for name, parameter in model.named_parameters():
        if "post_" in name:
            parameter.mul_(0.7)
    model.decoder.norm.weight.mul_(8.0)
    return model


def writing(plan: Denoising, *, end: int = NEVER, limit: int = 3 * SLOTS) -> Writing:
    ends = torch.arange(TINY.vocab_size) == end
    return Writing(slots=SLOTS, ends=ends, limit=limit, plan=plan, seed=3)


def written(model: DiffusionGemma, how: Writing, draws: Draws | None = None) -> tuple[list[Filling], list[Finished]]:
    """The states and the blocks behind `PROMPT`, by seeded draws or by others."""

    def filled(gap: Gap) -> Iterator[Filling]:
        chosen = draws or SeededDraws(TINY.vocab_size, gap.seed)
        return fill(model, gap.start.cache, gap.suffix, gap.hole, gap.plan, chosen)

    items = list(write_blocks(PrefixEncoder(model), filled, PROMPT, how))
    states = [item for item in items if isinstance(item, Filling)]
    return states, [item for item in items if isinstance(item, Finished)]


class Theirs:
    """Transformers' `generate` on the tiny model, with its random numbers noted down."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint.save(settling_model(), directory)
        self._model = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(directory).eval()
        self._monkeypatch = monkeypatch

    def generate(self, plan: Denoising, end: int) -> tuple[list[int], KeptDrafts, RecordedDraws]:
        """The tokens behind `PROMPT`, what stands behind the end included."""
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

        drafts, draws = KeptDrafts(), record_draws(self._monkeypatch.setattr)
        assert isinstance(plan.stopping, StableAndConfident)
        generated = self._model.generate(
            torch.tensor([PROMPT]),
            streamer=drafts,
            max_new_tokens=3 * SLOTS,
            max_denoising_steps=plan.max_denoising_steps,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=plan.acceptance.entropy_bound),
            stability_threshold=plan.stopping.stability_threshold,
            confidence_threshold=plan.stopping.confidence_threshold,
            eos_token_id=[end],
        )
        return generated.sequences[0, len(PROMPT) :].tolist(), drafts, draws


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theirs:
    return Theirs(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", PLANS)
def test_transformers_generate_is_reproduced_token_for_token(name: str, theirs: Theirs) -> None:
    plan = PLANS[name]
    tokens, drafts, draws = theirs.generate(plan, NEVER)
    states, blocks = written(settling_model(), writing(plan), draws)
    assert [token for block in blocks for token in block.tokens] == tokens
    assert [state.belief.argmax.tolist() for state in states] == drafts.drafts
    assert [block.stop_reason for block in blocks] == [None, None, "max_new_tokens"]
    assert sum(block.steps for block in blocks) == len(drafts.drafts)
    assert all(block.steps < 48 for block in blocks), "each stopped by itself"


SMALLEST = replace(TINY, vocab_size=8, canvas_length=4)
TEXTS = 2048


def canvases_of_transformers(directory: Path, plan: Denoising) -> Tensor:
    """[TEXTS, 4] tokens, each behind the same prompt, by its own random numbers."""
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    model = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(directory).eval()
    assert isinstance(plan.stopping, StableAndConfident)
    torch.manual_seed(0)
    sequences = model.generate(
        torch.tensor([[2, 5, 3, 7, 4]]).expand(TEXTS, -1),
        max_new_tokens=4,
        max_denoising_steps=plan.max_denoising_steps,
        t_min=plan.temperature.t_min,
        t_max=plan.temperature.t_max,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=plan.acceptance.entropy_bound),
        stability_threshold=plan.stopping.stability_threshold,
        confidence_threshold=plan.stopping.confidence_threshold,
        eos_token_id=[NEVER],
    ).sequences
    return torch.as_tensor(sequences[:, 5:])


def canvases_of_ours(model: DiffusionGemma, plan: Denoising) -> Tensor:
    """The same by the step that is captured on a GPU, with the numbers that it draws on the device."""
    loop, rows = DeviceLoop(model), []
    cache = model.encode(torch.tensor([[2, 5, 3, 7, 4]])).cache
    nothing = torch.zeros(SMALLEST.vocab_size, dtype=torch.bool)
    hole = Hole(initial=4, longest=4, ends=nothing, filler=0, pinned_signal=False)
    for first in range(0, TEXTS, 128):
        behind = torch.empty(0, dtype=torch.long)
        batch = [Row(cache=cache, suffix=behind, hole=hole, plan=plan, seed=first + one) for one in range(128)]
        *_, last = loop.fill(batch)
        rows += [state.belief.argmax for state in last]
    return torch.stack(rows)


def distance(one: Tensor, other: Tensor) -> tuple[float, int]:
    """Two-sample chi-squared of the pairs of neighbouring tokens, and its degrees of freedom."""
    total, freedom = 0.0, 0
    for slot in range(3):
        counts = [
            torch.bincount(part[:, slot] * SMALLEST.vocab_size + part[:, slot + 1], minlength=64).double()
            for part in (one, other)
        ]
        together = counts[0] + counts[1]
        seen = together >= 16
        total += float(((counts[0] - counts[1])[seen] ** 2 / together[seen]).sum())
        freedom += int(seen.sum()) - 1
    return total, freedom


def test_texts_are_distributed_as_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draws its own random numbers. A chi-squared has the mean of its degrees and twice that as its variance."""
    monkeypatch.setattr(rows_module, "SHORTEST_PREFIX", 16)
    model = tiny_model(SMALLEST)
    model.decoder.norm.weight.mul_(3.0)
    checkpoint.save(model, tmp_path)
    plan = Denoising(
        max_denoising_steps=3,
        acceptance=EntropyBound(entropy_bound=0.5),
        stopping=StableAndConfident(stability_threshold=1, confidence_threshold=1e-6),
    )
    theirs = canvases_of_transformers(tmp_path, plan)
    assert len(set(map(tuple, theirs.tolist()))) > 50, "there is something to compare"
    found, freedom = distance(theirs, canvases_of_ours(model, plan))
    assert found < freedom + 4 * math.sqrt(2 * freedom)
    hotter = replace(plan, temperature=replace(plan.temperature, t_min=1.5, t_max=3.0))
    for other in (hotter, replace(plan, max_denoising_steps=2)):
        found, freedom = distance(theirs, canvases_of_ours(model, other))
        assert found > freedom + 4 * math.sqrt(2 * freedom), "another plan shows"


@pytest.mark.parametrize("place", [0, SLOTS - 1, SLOTS, SLOTS + 5])
def test_the_text_ends_where_transformers_ends_it(place: int, theirs: Theirs) -> None:
    plan = PLANS["stops that differ"]
    end = theirs.generate(plan, NEVER)[0][place]
    tokens, _, draws = theirs.generate(plan, end)
    _, blocks = written(settling_model(), writing(plan, end=end), draws)
    assert [token for block in blocks for token in block.tokens] == tokens[: tokens.index(end)]
    assert blocks[-1].stop_reason == "end_of_sequence"
    assert len(blocks) == tokens.index(end) // SLOTS + 1


@pytest.mark.parametrize(("limit", "lengths"), [(5, [5]), (SLOTS, [SLOTS]), (SLOTS + 1, [SLOTS, 1])])
def test_no_more_tokens_are_written_than_asked_for(limit: int, lengths: list[int]) -> None:
    _, blocks = written(tiny_model(), writing(PLANS["stops that differ"], limit=limit))
    assert [len(block.tokens) for block in blocks] == lengths
    assert [block.stop_reason for block in blocks] == [None] * (len(lengths) - 1) + ["max_new_tokens"]


def test_a_time_budget_ends_the_text_with_the_confident_left_part() -> None:
    model = tiny_model()
    how = replace(writing(Denoising()), deadline=time.perf_counter() - 1)
    *_, block = write_blocks(PrefixEncoder(model), ByFiller(model).fill, PROMPT, how)
    assert isinstance(block, Finished)
    assert block.stop_reason == "time_budget"
    assert block.steps == 1
    assert len(block.tokens) < SLOTS


def test_a_document_s_blocks_are_kept_for_a_prompt_that_goes_on() -> None:
    model = tiny_model()
    encoder = PrefixEncoder(model)
    how = replace(writing(PLANS["stops that differ"]), document="d")
    items = list(write_blocks(encoder, ByFiller(model).fill, PROMPT, how))
    blocks = [item.tokens for item in items if isinstance(item, Finished)]
    *_, prefix = encoder.encode("d", [*PROMPT, *blocks[0], *blocks[1], 7, 8])
    assert prefix is not None
    assert prefix.cached == len(PROMPT) + 2 * SLOTS, "the last block is not encoded: nothing follows it yet"
    whole = model.encode(torch.tensor([[*PROMPT, *blocks[0], *blocks[1], 7, 8]]))
    torch.testing.assert_close(prefix.start.hidden, whole.hidden[0, -1:], rtol=1e-4, atol=1e-4)


def test_characters_whose_bytes_are_in_two_parts_come_whole() -> None:
    tokenizer = Tokenizer(tiny_tokenizer())
    text = "a😋é\n😋"
    tokens = tokenizer.encode(text)
    for size in (1, 2, 3, 5):
        transcript = Transcript(tokenizer)
        parts = [tokens[at : at + size] for at in range(0, len(tokens), size)]
        shown = [transcript.more(part, last=part is parts[-1]) for part in parts]
        assert "".join(shown) == text
        assert not any("\ufffd" in one for one in shown)
    eos, bad = tokenizer.special_id("<eos>"), tokenizer.encode("😋")[:2]
    assert Transcript(tokenizer).more([eos, *bad], last=True) == tokenizer.decode(bad)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the tokens of a chat."""
    directory = tiny_checkpoint(tmp_path_factory.mktemp("chatty"))
    tiny_tokenizer(320, [*SPECIAL_TOKENS, *CHAT_TOKENS]).save(str(directory / "tokenizer.json"))
    return directory


def test_a_draft_s_pieces_are_its_text_where_the_bytes_of_a_character_lie_in_two() -> None:
    tokenizer = Tokenizer.load(shipped_model())
    tokens = tokenizer.encode('x = "日本"')
    accepted = torch.arange(len(tokens)) % 2 == 0
    belief = Belief(torch.tensor(tokens), torch.ones(len(tokens)), torch.zeros(len(tokens)), accepted)
    found = pieces(tokenizer, Filling(belief, len(tokens), 1, None), "x")
    assert "".join(piece.text for piece in found) == ' = "日本"'
    assert {piece.settled for piece in found} == {True, False}


def test_the_engine_writes_a_seed_s_text_in_units_that_can_be_cancelled(chatty: Path) -> None:
    engine = Engine.load(chatty, dtype=torch.float32)
    request = GenerateRequest(prompt="x = 1\n" * 70, max_new_tokens=100, seed=4)
    *drafts, last = items = list(engine.generate(request))
    blocks = [item for item in items if isinstance(item, Block)]
    shown = [item for item in drafts if isinstance(item, Draft)]
    chunks = -(-(1 + len(engine.tokenizer.encode(request.prompt))) // PREFILL_CHUNK)
    assert [draft.step for draft in shown][: chunks - 1] == [0] * (chunks - 1)
    assert chunks > 1
    assert isinstance(last, Block)
    assert last.stop_reason in ("max_new_tokens", "end_of_sequence")
    assert sum(block.steps for block in blocks) == len([draft for draft in shown if draft.step])
    assert "".join(block.text for block in blocks)
    again = [item for item in engine.generate(request) if isinstance(item, Block)]
    assert [block.text for block in again] == [block.text for block in blocks]
    other = engine.generate(msgspec.structs.replace(request, seed=5))
    assert [item.text for item in other if isinstance(item, Block)] != [block.text for block in blocks]


def test_settings_of_a_request_are_obeyed(chatty: Path) -> None:
    engine = Engine.load(chatty, dtype=torch.float32)

    def block(**change: Any) -> Block:
        *_, last = engine.generate(GenerateRequest(prompt="x = ", max_new_tokens=8, **change))
        assert isinstance(last, Block)
        return last

    assert block(max_denoising_steps=2).steps == 2
    assert block(time_budget_ms=0.0).stop_reason == "time_budget"
    assert block(entropy_bound=1e6).text != block(entropy_bound=0.0).text
    assert block(chat=True).text != block().text


def test_what_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    engine = Engine.load(tiny_checkpoint(tmp_path), dtype=torch.float32)
    with pytest.raises(RequestError, match="no tokens for a chat"):
        list(engine.generate(GenerateRequest(prompt="hello", chat=True)))
    with pytest.raises(RequestError, match="this model holds 1024"):
        list(engine.generate(GenerateRequest(prompt="x = 1\n" * 400)))
    with pytest.raises(ValueError, match="max_new_tokens"):
        GenerateRequest(prompt="", max_new_tokens=0)


@pytest.mark.parametrize(("named", "ends"), [([1, 3], [1, 3]), (2, [2]), (None, [1])])
def test_the_tokens_that_end_a_text_are_those_of_the_generation_config(
    named: Any, ends: list[int], tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}), encoding="utf-8")
    assert read_ends(tmp_path, TINY).nonzero()[:, 0].tolist() == ends


def test_an_end_that_is_no_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 61]}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"generation_config.json: eos_token_id: expected tokens below 61"):
        read_ends(tmp_path, TINY)


def test_the_command_writes_behind_a_file_or_its_input(chatty: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("def f(a):\n", encoding="utf-8")
    options = ["generate", "--model", str(chatty), "--max-new-tokens", "70", "--seed", "2", "--device", "cpu"]
    from_file = CliRunner().invoke(main, [*options, str(prompt)])
    from_input = CliRunner().invoke(main, options, input="def f(a):\n")
    assert from_file.exit_code == 0, from_file.output
    assert from_file.stdout == from_input.stdout
    assert "tokens" in from_file.stderr
    chat = CliRunner().invoke(main, [*options, "--chat", str(prompt)])
    assert chat.exit_code == 0
    assert chat.stdout != from_file.stdout


@pytest.mark.parametrize(
    ("arguments", "given", "expected"),
    [
        ([], "  \n", "the prompt is empty"),
        (["--max-new-tokens", "0"], "x", "--max-new-tokens"),
        (["/no/such/file"], "", "/no/such/file"),
        (["--model", "/no/such/checkpoint"], "x", "/no/such/checkpoint"),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_so(arguments: list[str], given: str, expected: str) -> None:
    result = CliRunner().invoke(main, ["generate", *arguments], input=given)
    assert result.exit_code in (1, 2)
    assert expected in result.output
