"""The engine in one process: text in, drafts and an answer out, one unit of work at a time.

`infill` is a generator. Each item that it yields is one unit of work done: a chunk of the prefix encoded, or one
denoising step. Whoever drives it decides what runs next, and cancels by not asking for more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from dg_engine import adapters, checkpoint
from dg_engine.api import (
    Block,
    Draft,
    Extent,
    GenerateRequest,
    Infill,
    InfillRequest,
    ModelInfo,
    Score,
    ScoreRequest,
)
from dg_engine.causal import gains_behind
from dg_engine.copying import LONGEST_COPY, end_of_copy
from dg_engine.cuts import find_heads
from dg_engine.drafts import answer_text, pieces
from dg_engine.eight_bits import is_faster
from dg_engine.errors import CheckpointError, RequestError
from dg_engine.fused import FusedModel, can_fuse
from dg_engine.generation import Generator
from dg_engine.hardware import device_here, fastest_dtype, multiplies_packed
from dg_engine.infill import SPARE, Hole
from dg_engine.joined import join
from dg_engine.lengths import ByFiller, Gap
from dg_engine.model import DiffusionGemma
from dg_engine.prefix_store import Prefix, PrefixEncoder
from dg_engine.probe import ByProbe
from dg_engine.prompt import encode_behind, encode_header, encode_suffix
from dg_engine.rows import SHORTEST_PREFIX
from dg_engine.scaffold import FENCE, can_chat, encode_file_chat
from dg_engine.settings import read_denoising, read_ends, read_infill_config
from dg_engine.tokenizer import Healed, Tokenizer
from dg_engine.writing import Chosen, Wanted, Writer

LIKELY_COPIED = 0.5
"""The probability of being right from which diffusion starts with what may be copied, in place of noise."""
SHOWN_SHARE = 4
"""Of the prefix's tokens, one in so many may be text behind the cursor that a chat shows."""


class _Asked(NamedTuple):
    """A request at work."""

    request: InfillRequest
    healed: Healed
    prefix: Prefix
    started: float
    """`time.perf_counter()` seconds."""
    length: int | None = None
    """Of the answer in tokens, where it is known."""

    @property
    def deadline(self) -> float | None:
        """Likewise; None for none."""
        budget = self.request.time_budget_ms
        return None if budget is None else self.started + budget / 1000

    @property
    def milliseconds(self) -> float:
        """Since the request came."""
        return _since(self.started)


LONGEST_SCORED = 1024
"""Tokens: they are one unit of work, of half a second on a slow core, and its memory grows by their square."""


class Engine:
    """A loaded checkpoint and the prefix caches of the documents in use. Not thread-safe: one worker owns it."""

    def __init__(
        self, model: DiffusionGemma, tokenizer: Tokenizer, directory: Path, adapter: Path | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.directory = directory
        self.adapter = adapter
        self.config = read_infill_config(directory)
        model.dropped_mass = self.config.dropped_mass
        self.denoising = read_denoising(directory)
        self._writer = Writer(model, tokenizer)
        chats = self.config.chat and can_chat(tokenizer)
        self._fence = tokenizer.containing(FENCE) if chats else None
        """[V] booleans: what closes the file in a chat; None where the model is not asked in one."""
        by_filler = ByFiller(model)
        self._prefixes = PrefixEncoder(model, by_filler.device_loop)
        self._device_loop = by_filler.device_loop
        probe = self.config.length_probe
        self._lengths = by_filler if probe is None else ByProbe(model, probe, tokenizer.special, by_filler)
        self._answer_ends = tokenizer.special.clone()
        self._line_ends = self._answer_ends | tokenizer.with_newline
        ends = read_ends(directory, model.config)
        self._generator = Generator(model, tokenizer, self._prefixes, by_filler, self.denoising, ends)

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        adapter: Path | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        report: Callable[[str, float], None] = lambda message, progress: None,
    ) -> Engine:
        """Load a checkpoint directory.

        Args:
            directory: Hugging Face layout.
            adapter: directory of an adapter for it, which is merged into the weights.
            device: None takes a GPU if there is one.
            dtype: of what the weights are multiplied in; None takes what this machine multiplies fastest. int8 is for
                models of one expert on a CPU, whose other arithmetic is in fp32 then.
            report: told what is being loaded, and the fraction of the loading that is done.

        Raises:
            CheckpointError: something in a directory is missing or malformed, or the adapter is not for this model.
        """
        where = device_here(device)
        report("reading the tokenizer", 0.3)
        tokenizer = Tokenizer.load(directory)
        # An adapter adds to numbers, not to what they are packed in.
        keep_packed = adapter is None and multiplies_packed(where)
        precision = fastest_dtype(where) if dtype in {None, torch.int8} else dtype
        model = checkpoint.load(
            directory,
            dtype=precision,
            device=where,
            keep_packed=keep_packed,
            report=lambda done: report("reading the weights", 0.4 + 0.4 * done),
        )
        if model.config.use_bidirectional_attention == "all":  # a prefix is encoded in parts, and goes on
            raise CheckpointError(f"{directory}/config.json: use_bidirectional_attention: expected null or vision")
        if tokenizer.vocab_size != model.config.vocab_size:
            raise CheckpointError(
                f"{directory}/tokenizer.json: expected {model.config.vocab_size} tokens, found {tokenizer.vocab_size}"
            )
        if adapter is not None:
            report("merging the adapter", 0.8)
            adapters.merge(model, adapters.load(adapter, model, directory))
        if where == "cpu" and can_fuse(model):
            model = FusedModel(model, eight_bits=dtype == torch.int8 or (dtype is None and is_faster(precision)))
        elif dtype == torch.int8:
            raise CheckpointError(f"{directory}: int8 is for models of one expert on a CPU")
        if model.device.type == "cuda":
            join(model)
        return cls(model, tokenizer, directory, adapter)

    @property
    def info(self) -> ModelInfo:
        """What is loaded and where."""
        config = self.model.config
        parameters = self.model.parameter_count
        expert = 3 * config.hidden_size * config.moe_intermediate_size
        idle = (config.num_experts - config.top_k_experts) * expert * config.num_hidden_layers
        weight = self.model.decoder.embed_tokens.weight
        return ModelInfo(
            name=self.config.name,
            path=str(self.directory),
            adapter="" if self.adapter is None else str(self.adapter),
            parameters=parameters,
            active_parameters=parameters - idle,
            device=str(weight.device),
            dtype=str(self.model.product_dtype).removeprefix("torch."),
            vocab_size=config.vocab_size,
            canvas_length=config.canvas_length,
            max_prefix_tokens=self.config.max_prefix_tokens,
            max_denoising_steps=self.denoising.max_denoising_steps,
            entropy_bound=self.denoising.acceptance.entropy_bound,
        )

    def warm_up(self) -> None:
        """Run a small infill of each extent, so that the first user does not pay for lazy initialisation.

        Where steps are captured, those of usual requests are, behind short prefixes and behind longer ones; likewise
        chunks of a prefix.
        """
        extents: tuple[Extent, ...] = ("line", "block")
        usual = InfillRequest(prefix="def f(a):\n    return ", suffix="\n", max_denoising_steps=2)
        asked = [replace(usual, max_new_tokens=8)]
        if self._device_loop is not None:
            asked = [usual, replace(usual, prefix=usual.prefix * SHORTEST_PREFIX)]
        for request, extent in product(asked, extents):
            for _ in self.infill(replace(request, extent=extent)):
                pass
        self._prefixes.warm_up()

    @torch.inference_mode()
    def infill(self, request: InfillRequest, length: int | None = None) -> Iterator[Draft | Infill]:
        """Do the work of a request, yielding after every unit; the last item is the `Infill`.

        A draft of step 0 has nothing new to show: a chunk of the prefix was encoded, or a pass found no better text.

        Args:
            request: what is asked.
            length: tokens of the answer, where `causal_fit` is told them: what not knowing them costs is measured so.

        Raises:
            ValueError: another decoding is told the length.
        """
        decoding = self.config.decoding_of(request)
        if length is not None and decoding != "causal_fit":
            raise ValueError(f"{decoding} cannot be told the length of its answer")
        started = time.perf_counter()
        healed = self.heal(request.prefix, decoding)
        tokens = self._prompt(request, healed.kept)
        prefix = None
        for prefix in self._prefixes.encode(request.document, tokens):
            if prefix is None:
                yield Draft(step=0, pieces=(), milliseconds=_since(started))
        assert prefix is not None  # noqa: S101  (the last item always is a prefix)
        produce = self._diffuse if decoding == "diffusion" else self._write
        yield from produce(_Asked(request, healed, prefix, started, length))

    def heal(self, prefix: str, decoding: str) -> Healed:
        """The prefix as a decoding reads it, and what is cut off it to be written anew."""
        tokenizer = self.tokenizer
        return tokenizer.heal(prefix) if decoding == "diffusion" else tokenizer.heal_by_spelling(prefix)

    @torch.inference_mode()
    def sureness_of_lengths(self, request: InfillRequest, longest: int) -> dict[int, float]:
        """How sure the model is, after one step, of each length that its probe tries, whatever the extent.

        Args:
            request: what is asked.
            longest: slots of the hole.

        Raises:
            RequestError: the checkpoint finds lengths by filler.
        """
        if not isinstance(self._lengths, ByProbe):
            raise RequestError("this checkpoint tries no lengths: it learnt to close a hole with filler")
        healed = self.heal(request.prefix, "diffusion")
        prefix = self._prefixes.whole(request.document, self._prompt(request, healed.kept))
        gap = self._gap(_Asked(request, healed, prefix, time.perf_counter()))
        return self._lengths.first_sureness(gap, min(longest, self.model.config.canvas_length))

    @torch.inference_mode()
    def score(self, request: ScoreRequest) -> Score:
        """How likely the causal twin finds the text after the prefix, and the suffix after both.

        Raises:
            RequestError: text and suffix are too long to be read in one pass.
        """
        text, suffix = self.tokenizer.encode(request.text), self.tokenizer.encode(request.suffix)
        if len(text) + len(suffix) > LONGEST_SCORED:
            raise RequestError(
                f"text and suffix are {len(text) + len(suffix)} tokens; a score is told of {LONGEST_SCORED} at most"
            )
        prefix = self._prefixes.whole("", self._prompt(request, request.prefix))
        (gains,) = gains_behind(self.model, prefix.start, [text + suffix], self._device_loop)
        return Score(
            text=sum(gains[: len(text)]),
            text_tokens=len(text),
            suffix=sum(gains[len(text) :]),
            suffix_tokens=len(suffix),
        )

    @torch.inference_mode()
    def generate(self, request: GenerateRequest) -> Iterator[Draft | Block]:
        """Write long text, yielding after every unit of work; the last item is a `Block` with a stop reason.

        Raises:
            RequestError: the prompt leaves no room, or the vocabulary has no tokens for a chat.
        """
        yield from self._generator.generate(request)

    def _prompt(self, request: InfillRequest | ScoreRequest, prefix: str) -> list[int]:
        """What the encoder reads: in a chat, the suffix too."""
        limit, path, suffix = self.config.max_prefix_tokens, request.path, request.suffix
        if self._fence is not None:
            header = encode_file_chat(self.tokenizer, path, request.language, suffix, limit // SHOWN_SHARE)
        else:
            header = encode_header(self.tokenizer, path if self.config.file_header else "")
        return encode_behind(self.tokenizer, header, prefix, limit)

    def _gap(self, asked: _Asked) -> Gap:
        suffix = encode_suffix(self.tokenizer, asked.request.suffix, self.config.suffix_tokens)
        return Gap(
            start=asked.prefix.start,
            suffix=torch.tensor(suffix, dtype=torch.long, device=self.model.device),
            hole=self._hole(asked),
            plan=self.denoising.told(asked.request.max_denoising_steps, asked.request.entropy_bound),
            seed=asked.request.seed,
            deadline=asked.deadline,
        )

    def _diffuse(self, asked: _Asked) -> Iterator[Draft | Infill]:
        for state in self._lengths.fill(self._gap(asked)):
            shown = pieces(self.tokenizer, state, asked.healed.cut)
            # What was chosen by its log-probabilities is no step's draft: the answer comes at once.
            if state.gains is None:
                yield Draft(step=state.step, pieces=shown, milliseconds=asked.milliseconds)
        assert state.stop_reason is not None  # noqa: S101  (`fill` ends with one)
        gains = state.gains
        if gains is None:
            (gains,) = gains_behind(self.model, asked.prefix.start, [state.tokens], self._device_loop)
        yield self._answer(asked, Chosen(state.tokens, gains, state.step, state.stop_reason))

    def _hole(self, asked: _Asked) -> Hole:
        line = asked.request.extent == "line"
        longest = min(asked.request.max_new_tokens, self.model.config.canvas_length)
        draft = self._draft(asked)
        initial = min(max(self.config.line_hole if line else self.config.block_hole, len(draft)), longest)
        return Hole(
            initial=initial,
            draft=tuple(draft[:initial]),
            longest=longest,
            ends=self._ends(asked.request),
            filler=self.model.config.eos_token_id,
            first_allowed=None if asked.healed.allowed is None else asked.healed.allowed.to(self.model.device),
            filler_bias=self.config.filler_bias,
            pinned_signal=self.config.pinned_signal,
            typed=tuple(self.tokenizer.encode(asked.healed.cut)),
        )

    def _draft(self, asked: _Asked) -> list[int]:
        """What is copied of the answer and what ends it, where a copy is likelier right than not."""
        request = asked.request
        if request.copied is None or self.config.copy_probability(request) < LIKELY_COPIED:
            return []
        copied = request.copied.text[:LONGEST_COPY]
        end = end_of_copy(copied, request.suffix, request.extent)
        tokens = self.tokenizer.encode(asked.healed.cut + copied[:end])
        return tokens if end is None else [*tokens, *[self.model.config.eos_token_id] * SPARE]

    def _ends(self, request: InfillRequest) -> Tensor:
        ends = self._line_ends if request.extent == "line" else self._answer_ends
        if self._fence is not None and not request.suffix:
            ends = ends | self._fence
        return ends.to(self.model.device)

    def _write(self, asked: _Asked) -> Iterator[Draft | Infill]:
        """From left to right with the same weights, with the suffix or without."""
        wanted = Wanted(
            request=asked.request,
            config=self.config,
            start=asked.prefix.start,
            cut=asked.healed.cut,
            ends=self._ends(asked.request),
            length=asked.length,
            deadline=asked.deadline,
        )
        for found in self._writer.write(wanted):
            if isinstance(found, Chosen):
                yield self._answer(asked, found)
            else:
                yield Draft(step=found.step, pieces=found.pieces, milliseconds=asked.milliseconds)

    def _answer(self, asked: _Asked, chosen: Chosen) -> Infill:
        cut = asked.healed.cut
        text = answer_text(self.tokenizer, cut, chosen.tokens, chosen.overlap)
        others = (answer_text(self.tokenizer, cut, end.tokens, end.overlap) for end in chosen.others)
        gains = chosen.gains[: len(chosen.tokens)]
        # Fitted to what the checkpoint answers where the request names no decoding.
        fitted = self.config.decoding_of(asked.request) == self.config.decoding
        heads = find_heads(self.tokenizer, chosen.tokens, gains, cut, text)
        return Infill(
            text=text,
            tokens=len(chosen.tokens),
            steps=chosen.steps,
            milliseconds=asked.milliseconds,
            score=fmean(gains) if gains else None,
            stop_reason=chosen.stop_reason,
            prefix_tokens=asked.prefix.tokens,
            cached_tokens=asked.prefix.cached,
            others=tuple(filter(None, others)),
            heads=self.config.rated(heads) if fitted else heads,
        )


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
