"""What is measured of one answer."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import NamedTuple

from dg_engine.evaluation import sandbox
from dg_engine.evaluation.cases import Case
from dg_engine.training.hygiene import parses

# Shorter coincidences with what follows are ordinary: a bracket, a comma, a name.
_REPEATED = 8


class Scores(NamedTuple):
    """Of one answer against the truth. Booleans are 0 or 1, so that all can be averaged."""

    exact: float
    """With what follows the hole in its last line the lines are equal, blanks at their ends aside; where nothing does,
    empty lines at the end too."""
    similarity: float
    """0 to 1: `difflib`'s ratio, which fuzzywuzzy and with it CodeXGLUE call edit similarity."""
    first_line: float
    """There is an answer, if there should be one, and the first lines are equal, trailing blanks aside."""
    parses: float | None
    """Prefix, answer and suffix are sound Python, as the original is; None in other languages."""
    length_error: float
    """Absolute difference of the lengths in tokens."""
    empty: float
    """There is no answer, though there should be one."""
    repeats_suffix: float
    """The answer ends with the text that follows it."""
    passes: float | None = None
    """The case's own tests pass, run in the sandbox; None where it has none."""


def score(case: Case, answer: str, tokens: int, true_tokens: int) -> Scores:
    """Compare an answer with the truth.

    Args:
        case: prefix, truth, suffix.
        answer: what was decoded.
        tokens: of the answer.
        true_tokens: of the truth.
    """
    return Scores(
        **compared(case, answer),
        parses=float(parses(case.prefix + answer + case.suffix)) if case.is_python else None,
        length_error=float(abs(tokens - true_tokens)),
        passes=_passes(case, answer),
    )


def compared(case: Case, answer: str) -> dict[str, float]:
    """Those of `Scores` that follow from the text of an answer alone, by name."""
    found, true = answer.rstrip(), case.answer.rstrip()
    return {
        "exact": float(_lines(case, answer) == _lines(case, case.answer)),
        "similarity": SequenceMatcher(None, found, true, autojunk=False).ratio(),
        "first_line": float(bool(found) >= bool(true) and _first_line(found) == _first_line(true)),
        "empty": float(not found),
        "repeats_suffix": float(_repeats(found, case.suffix.strip())),
    }


def _lines(case: Case, text: str) -> list[str]:
    """The lines of the hole with a text in it, without blanks at their ends.

    A break or a blank at the end of the text counts where the line goes on behind it: it parts two words or lines.
    """
    behind = case.suffix.split("\n", 1)[0]
    lines = [line.rstrip() for line in (text + behind).split("\n")]
    while not behind.strip() and lines and not lines[-1]:
        lines.pop()
    return lines


def _passes(case: Case, answer: str) -> float | None:
    if not case.test:
        return None
    # A break before the test, as the benchmark's authors have it: an answer at the end need not end its line.
    return float(sandbox.run(f"{case.prefix}{answer}{case.suffix}\n{case.test}") == "passed")


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].rstrip()


def _repeats(answer: str, suffix: str) -> bool:
    longest = min(len(answer), len(suffix))
    return any(answer.endswith(suffix[:length]) for length in range(_REPEATED, longest + 1))
