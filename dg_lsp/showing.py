"""What of an answer is worth showing unasked: the keys that it spares if right, against the price if wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dg_engine.api import Infill
from dg_lsp.planning import Silence
from dg_lsp.settings import Settings

USUAL_KEYS = 10
"""That a completion spares of which the setting `min_probability` speaks."""

KEY = re.compile(r"\n[ \t]*|.")
"""What one key types: a line break with the indentation that an editor puts behind it, or a character."""


LIKELY_CLOSERS = 0.6
"""The probability, if what stands before them is right, from which closers are shown with it."""

_CLOSERS = re.compile(r"[)\]}\"':]+")


def spared(text: str) -> int:
    """How many keys less it takes to accept a text, with one, than to type it."""
    return max(0, len(KEY.findall(text.strip())) - 1)


def gain(probability: float, keys: int, least: float) -> float:
    """What is to be expected of a completion that spares so many keys if it is right, in keys times 1 - `least`.

    A wrong one has a price, so high that one of probability `least` that spares ten keys comes to nothing. Code of four
    projects that were not trained on was typed again, 90 passages of it, by hand and with each answer cut where that is
    worth most: at `least` = 0.4 that spared 47 % of the keys, and 73 % of what was shown was right. Whole lines, each
    shown from one probability on, spared 32 % at best, and 37 % of them were right.
    """
    return probability * keys * (1 - least) - USUAL_KEYS * least * (1 - probability)


def worth_showing(infill: Infill, settings: Settings) -> str | Silence:
    """The part of a calibrated model's answer of which most is to be expected; all or nothing of any other's."""
    least = settings.min_probability
    heads = list(_rated(infill))
    if not heads:
        return _if_likely(infill, settings.min_score)
    if not least:
        return infill.text
    gained, text, probability = max((gain(chance, spared(text), least), text, chance) for text, chance in heads)
    if gained > 0:
        return _with_closers(text, probability, heads, least)
    if not spared(text):
        return Silence("The answer spares no key.")
    return Silence(
        f"The model was not sure enough: a probability of {probability:.2g} for {spared(text)} keys spared, where "
        f"{least:.2g} is asked for {USUAL_KEYS}."
    )


def _with_closers(text: str, probability: float, heads: Sequence[tuple[str, float]], least: float) -> str:
    """`text` and the closers behind it, if they are likely and it is worth showing with them too.

    They spare a key or two, so that the best end lies before them, but what is left open asks to be read twice, and by
    themselves they are never worth showing.
    """
    for longer, chance in sorted(heads, reverse=True):
        if (
            longer.startswith(text)
            and _CLOSERS.fullmatch(longer, len(text))
            and chance >= LIKELY_CLOSERS * probability
            and gain(chance, spared(longer), least) > 0
        ):
            return longer
    return text


def _rated(infill: Infill) -> Iterator[tuple[str, float]]:
    """Each text that may be shown, and the probability that it is right, where that is known."""
    for head in infill.heads:
        if head.probability is not None:
            yield infill.text[: head.characters], head.probability


def _if_likely(infill: Infill, least: float) -> str | Silence:
    if infill.score is not None and infill.score < least:
        return Silence(f"The model was not sure enough: a score of {infill.score:.2g}, where {least:.2g} is asked for.")
    return infill.text
