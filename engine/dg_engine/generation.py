"""Long text from a prompt or a message: text in, drafts and blocks of text out, one unit of work at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from dg_engine.api import Block, Draft, GenerateRequest
from dg_engine.blocks import Finished, Writing, write_blocks
from dg_engine.drafts import Transcript, pieces
from dg_engine.errors import RequestError
from dg_engine.lengths import ByFiller
from dg_engine.model import DiffusionGemma
from dg_engine.policies import Denoising
from dg_engine.prefix_store import PrefixEncoder
from dg_engine.prompt import encode_header
from dg_engine.scaffold import can_chat, encode_chat
from dg_engine.tokenizer import Tokenizer


class Generator:
    """Writes as the model was built to, with its own defaults.

    Args:
        model: encoder and decoder.
        tokenizer: the checkpoint's.
        encoder: has the prefix caches of the documents in use.
        by_filler: denoises canvases.
        denoising: what a request gets that asks for nothing else.
        ends: [V] booleans: tokens that end a text.
    """

    def __init__(
        self,
        model: DiffusionGemma,
        tokenizer: Tokenizer,
        encoder: PrefixEncoder,
        by_filler: ByFiller,
        denoising: Denoising,
        ends: Tensor,
    ) -> None:
        self._config, self._tokenizer = model.config, tokenizer
        self._encoder, self._by_filler = encoder, by_filler
        self._denoising, self._ends = denoising, ends.to(model.device)

    def generate(self, request: GenerateRequest) -> Iterator[Draft | Block]:
        """As `Engine.generate`. A draft of step 0 has nothing to show; the others are of the block at work."""
        started = time.perf_counter()
        transcript, prompt = Transcript(self._tokenizer), self._prompt(request)
        for item in write_blocks(self._encoder, self._by_filler.fill, prompt, self._writing(request, prompt, started)):
            milliseconds = (time.perf_counter() - started) * 1000
            if item is None:
                yield Draft(step=0, pieces=(), milliseconds=milliseconds)
            elif isinstance(item, Finished):
                yield Block(
                    text=transcript.more(item.tokens, last=item.stop_reason is not None),
                    tokens=len(item.tokens),
                    steps=item.steps,
                    milliseconds=milliseconds,
                    stop_reason=item.stop_reason,
                )
            else:
                yield Draft(step=item.step, pieces=pieces(self._tokenizer, item), milliseconds=milliseconds)

    def _prompt(self, request: GenerateRequest) -> list[int]:
        if not request.chat:
            return encode_header(self._tokenizer, "") + self._tokenizer.encode(request.prompt)
        if not can_chat(self._tokenizer):
            raise RequestError("this checkpoint has no tokens for a chat; give it the beginning of a text instead")
        return encode_chat(self._tokenizer, request.prompt)

    def _writing(self, request: GenerateRequest, prompt: list[int], started: float) -> Writing:
        most = self._config.max_position_embeddings
        if len(prompt) >= most:
            raise RequestError(f"the prompt has {len(prompt)} tokens, and this model holds {most} with its answer")
        budget = request.time_budget_ms
        return Writing(
            slots=self._config.canvas_length,
            ends=self._ends,
            limit=min(request.max_new_tokens, most - len(prompt)),
            plan=self._denoising.told(request.max_denoising_steps, request.entropy_bound),
            seed=request.seed,
            document=request.document,
            deadline=None if budget is None else started + budget / 1000,
        )
