"""What a checkpoint directory says of how it wants to be sampled.

`generation_config.json` is Hugging Face's file with Hugging Face's names. `infill_config.json` is this engine's own: it
says what the checkpoint was trained to know of infill, which no field of the other can express.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import torch
from torch import Tensor

from dg_engine.api import Decoding, Head, InfillRequest
from dg_engine.config import ModelConfig
from dg_engine.copying import Evidence, evidence
from dg_engine.errors import MALFORMED, CheckpointError
from dg_engine.policies import Denoising, EntropyBound, LinearTemperature, StableAndConfident

# Log-odds beyond which nothing changes and an exponential could overflow.
_SURE = 60.0
# A log-probability, in nats: a model that has no more doubt than one in a thousand has not earned that.
_LEAST_DOUBT = -1e-3
# Copying is wrong once in a hundred times even behind the longest matches, and a logarithm of 0 ruins all sums.
_SURE_COPY = 4.6


Count = Annotated[int, msgspec.Meta(ge=1)]


def _logistic(odds: float, most: float) -> float:
    """The probability of log-odds, which are at most so far from 0."""
    return 1 / (1 + math.exp(-min(max(odds, -most), most)))


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logistic regression of "what was missing begins with this head of the answer" on what the causal side thinks.

    Fitted on projects that were not trained on, by `dg-engine evaluate`.
    """

    bias: float
    mean: float
    """Weight of the mean log-probability per token, in nats."""
    odds: float
    """Weight of the log-odds of all tokens together."""

    def probability(self, head: Head) -> float:
        """That it is right."""
        return _logistic(self.bias + self.mean * head.score + self.odds * log_odds(head), _SURE)


def log_odds(head: Head) -> float:
    """The log-odds of a head's tokens, by their log-probabilities: what is nearly certain differs by orders there."""
    total = min(head.score * head.tokens, _LEAST_DOUBT)
    return total - math.log(-math.expm1(total))


class LengthBias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """B(L) = a exp(-b L) + c exp(-d L) + e: how sure a model is of a hole of L slots, whatever it holds.

    CAL (arXiv 2602.00476) divides by it; `dg-engine evaluate --length-bias` fits it to a checkpoint.
    """

    a: float
    b: float
    c: float
    d: float
    e: float

    def __post_init__(self) -> None:
        """Refuse what is not positive for every length."""
        if not (self.e > 0 and min(self.a, self.b, self.c, self.d) >= 0):
            raise ValueError("bias: e must be above 0, and a, b, c and d at least 0")

    def of(self, length: int) -> float:
        """B(length)."""
        return self.a * math.exp(-self.b * length) + self.c * math.exp(-self.d * length) + self.e


class LengthProbe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the length of an answer is found with a checkpoint that did not learn filler."""

    lengths: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    """Slots that are tried, ascending; those beyond `line_hole` or `block_hole` are not."""
    candidates: int = 4
    """Lengths that are refined after the first step."""
    bias: LengthBias | None = None
    """None compares the lengths as they are."""
    score_exponent: float = 1.0
    """Candidates are ranked by the log-probability of answer and suffix over their number of tokens to this power.

    0 is the exact posterior, whose likeliest text is often no text at all; 1 is the mean of a token."""

    def __post_init__(self) -> None:
        """Refuse lengths that could not be tried, and what would rank in no order."""
        if not self.lengths or self.lengths[0] < 1 or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("lengths must be at least 1, and ascend")
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates}")
        if not 0 <= self.score_exponent <= 1:
            raise ValueError(f"score_exponent must be from 0 to 1, not {self.score_exponent}")

    def up_to(self, longest: int) -> list[int]:
        """The lengths that are tried for a hole that may have so many slots."""
        return [length for length in self.lengths if length <= longest] or [longest]


class CopyTrust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often what follows the same text elsewhere comes here too, beyond what the model foresees.

    Fitted by `dg-engine evaluate --copy-trust` on projects that were not trained on.
    """

    bias: float
    """Log-odds of copying are this and the sum of the weights that follow, each times `Evidence.logs` of its name."""
    matched: float
    met: float
    elsewhere: float
    keeps: float
    """The probability that what was copied so far is copied further, token by token."""

    def __post_init__(self) -> None:
        """Refuse what is no probability, or certain."""
        if not 0 <= self.keeps < 1:
            raise ValueError(f"keeps: must be at least 0 and less than 1, not {self.keeps}")

    def probability(self, evidence: Evidence) -> float:
        """That the first token is copied."""
        return _logistic(self.bias + evidence.weighed((self.matched, self.met, self.elsewhere)), _SURE_COPY)


class InfillConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to lay out prefix and canvas for this checkpoint."""

    name: str = "diffusion-gemma"
    max_prefix_tokens: Count = 4096
    suffix_tokens: Annotated[int, msgspec.Meta(ge=0)] = 128
    """Pinned tokens behind the hole."""
    line_hole: Count = 32
    """Slots at the start for an answer of one line."""
    block_hole: Count = 128
    """Slots at the start for an answer of several lines."""
    filler_bias: float = 0.0
    """Nats added to the filler's logit. A loss that weighs filler by w teaches odds that are w times too small."""
    pinned_signal: bool = False
    """Whether pinned slots are self-conditioned on their own embedding from the first step on."""
    dropped_mass: float = 0.0
    """Probability that self-conditioning may leave out of a slot's distribution where at most 128 tokens hold the rest
    (`dg_kernels.soft_embedding` gives the bound of the error); 0 is exact. It spares a GPU reading all embeddings."""
    file_header: bool = False
    """Whether the prefix begins with the file's path behind a special token."""
    chat: bool = False
    """Whether the file is the answer of a chat, where the vocabulary has the tokens of one."""
    length_probe: LengthProbe | None = None
    """How the length of an answer is found; None where the checkpoint learnt to close a hole with filler."""
    decoding: Decoding = "diffusion"
    """What a request for one line gets that names none: what the evaluation found best."""
    block_decoding: Decoding = "diffusion"
    """The same for several lines."""
    copy_trust: CopyTrust | None = None
    """None where copied text counts for nothing."""
    calibration: Calibration | None = None
    """Of what `decoding` answers."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.dropped_mass < 1:
            raise ValueError(f"dropped_mass: must be at least 0 and less than 1, not {self.dropped_mass}")

    def decoding_of(self, request: InfillRequest) -> Decoding:
        """What a request gets."""
        return request.decoding or (self.decoding if request.extent == "line" else self.block_decoding)

    def rated(self, heads: Sequence[Head]) -> tuple[Head, ...]:
        """The same with the probability of each, if that is known."""
        if self.calibration is None:
            return tuple(heads)
        return tuple(msgspec.structs.replace(head, probability=self.calibration.probability(head)) for head in heads)

    def copy_probability(self, request: InfillRequest) -> float:
        """That the first token of what the request offers is copied; 0 where it offers nothing, or nothing is known."""
        if request.copied is None or self.copy_trust is None:
            return 0.0
        return self.copy_trust.probability(evidence(request.copied, request.suffix))


RELEASED = InfillConfig(suffix_tokens=32, chat=True, length_probe=LengthProbe())
"""What holds for a checkpoint without `infill_config.json`: it was trained to chat, and knows neither filler nor pinned
text. Of the suffix, which the chat shows, few tokens are pinned: they lie in the canvas once for every length."""


class SamplerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The field of `sampler_config` that is read."""

    entropy_bound: float | None = None


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `generation_config.json` that are read; absent or null takes the published value."""

    eos_token_id: int | list[int] | None = None

    max_denoising_steps: int | None = None
    sampler_config: SamplerConfig | None = None
    t_min: float | None = None
    t_max: float | None = None
    stability_threshold: int | None = None
    confidence_threshold: float | None = None

    def denoising(self) -> Denoising:
        """The same as policies."""
        default = Denoising()
        bound = None if self.sampler_config is None else self.sampler_config.entropy_bound
        stable, confident = self.stability_threshold, self.confidence_threshold
        published = StableAndConfident()
        return Denoising(
            max_denoising_steps=self.max_denoising_steps or default.max_denoising_steps,
            temperature=LinearTemperature(
                t_min=default.temperature.t_min if self.t_min is None else self.t_min,
                t_max=default.temperature.t_max if self.t_max is None else self.t_max,
            ),
            acceptance=default.acceptance if bound is None else EntropyBound(entropy_bound=bound),
            stopping=StableAndConfident(
                stability_threshold=published.stability_threshold if stable is None else stable,
                confidence_threshold=published.confidence_threshold if confident is None else confident,
            ),
        )


def read_infill_config(directory: Path) -> InfillConfig:
    """`infill_config.json`, or what holds for a released checkpoint that has none.

    Raises:
        CheckpointError: the file has an unknown key or a wrong value.
    """
    return _read(directory / "infill_config.json", InfillConfig) or RELEASED


def read_denoising(directory: Path) -> Denoising:
    """The denoising policies of `generation_config.json`, or the published ones.

    Raises:
        CheckpointError: a value is wrong or impossible.
    """
    try:
        return _read_generation(directory).denoising()
    except ValueError as error:
        raise CheckpointError(f"{directory / 'generation_config.json'}: {error}") from error


def read_ends(directory: Path, config: ModelConfig) -> Tensor:
    """[V] booleans: the tokens that end a text, by `generation_config.json` or else by the model's own configuration.

    Raises:
        CheckpointError: a value is wrong, or no token of the vocabulary.
    """
    named = _read_generation(directory).eos_token_id
    ends = config.eos_token_ids if named is None else [named] if isinstance(named, int) else named
    if not ends or not all(0 <= token < config.vocab_size for token in ends):
        expected = f"expected tokens below {config.vocab_size}"
        raise CheckpointError(f"{directory / 'generation_config.json'}: eos_token_id: {expected}, found {list(ends)}")
    mask = torch.zeros(config.vocab_size, dtype=torch.bool)
    mask[list(ends)] = True
    return mask


def _read_generation(directory: Path) -> GenerationConfig:
    return _read(directory / "generation_config.json", GenerationConfig) or GenerationConfig()


_Config = TypeVar("_Config", InfillConfig, GenerationConfig)


def _read(path: Path, kind: type[_Config]) -> _Config | None:
    """The file's content; None where there is no file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED) as error:
        raise CheckpointError(f"{path}: {error}") from error
