"""What of an answer is worth showing unasked: how likely it is right, against the keys that it spares."""

from __future__ import annotations

import math
import re

from dg_engine.api import Infill
from dg_lsp.planning import Silence
from dg_lsp.settings import Settings

USUAL_KEYS = 10
"""That a completion spares of which the setting `min_probability` speaks."""

KEY = re.compile(r"\n[ \t]*|.")
"""What one key types: a line break with the indentation that an editor puts behind it, or a character."""


def spared(text: str) -> int:
    """How many keys less it takes to accept a text, with one, than to type it."""
    return max(0, len(KEY.findall(text.strip())) - 1)


def is_worth(probability: float, keys: int, least: float) -> bool:
    """Whether a completion that spares so many keys is likely enough, where `least` is asked of one that spares ten.

    What must be reached are its odds times the square root of the keys. Code of four projects that were not trained on
    was typed again, 90 passages of it: no other power, nor the expected gain in keys less a price for each wrong offer,
    left fewer wrong offers for as many keys spared. At `least` = 0.3 that was 29.4 % of the keys with 189 wrong offers,
    for 27.9 % with 295 by one probability for all lengths.
    """
    return math.sqrt(keys) * probability * (1 - least) >= math.sqrt(USUAL_KEYS) * least * (1 - probability)


def worth_showing(infill: Infill, settings: Settings) -> str | Silence:
    """Of a calibrated model's answer the lines up to the last one where it is worth it; all or nothing of any other."""
    likely = [
        (head.probability, infill.text[: head.characters]) for head in infill.heads if head.probability is not None
    ]
    least = settings.min_probability
    if shown := [text for probability, text in likely if is_worth(probability, spared(text), least)]:
        return shown[-1]
    if likely:
        probability, text = likely[-1]
        return Silence(
            f"The model was not sure enough: a probability of {probability:.2g} for {spared(text)} keys spared, where "
            f"{least:.2g} is asked for {USUAL_KEYS}."
        )
    score, least = infill.score, settings.min_score
    if score is not None and score < least:
        return Silence(f"The model was not sure enough: a score of {score:.2g}, where {least:.2g} is asked for.")
    return infill.text
