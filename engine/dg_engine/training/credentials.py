"""Text that may be somebody's secret: key headers, tokens of known shapes, and strings that look drawn at random."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

# Each with a part that it must hold: looking for that first is thirty times as fast.
_SHAPES = {
    mark: re.compile(pattern)
    for mark, pattern in {
        "PRIVATE KEY": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
        "AKIA": r"\bAKIA[0-9A-Z]{16}\b",  # Amazon
        "ASIA": r"\bASIA[0-9A-Z]{16}\b",
        **{f"gh{kind}_": rf"\bgh{kind}_[A-Za-z0-9]{{36}}" for kind in "oprsu"},
        "github_pat_": r"\bgithub_pat_\w{60,}",
        "glpat-": r"\bglpat-[\w-]{20}",
        ":AA": r"\b\d{8,10}:AA[\w-]{33}\b",  # Telegram
        "AccountKey=": r"AccountKey=[A-Za-z0-9+/]{60,}",  # Azure
        "Bearer ": r"\bBearer [\w.~+/-]{32,}",
        "GOCSPX-": r"\bGOCSPX-[\w-]{20,}",  # Google
        "dop_v1_": r"\bdop_v1_[0-9a-f]{64}\b",  # DigitalOcean
        "xox": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        "hooks.slack.com": r"hooks\.slack\.com/services/T\w+/B\w+/\w{20,}",
        "AIza": r"\bAIza[\w-]{35}",  # Google
        "k_live_": r"\b[rs]k_live_[0-9A-Za-z]{20,}",  # Stripe
        "sk-": r"\bsk-(?:proj-|ant-)?[\w-]{32,}",  # OpenAI, Anthropic
        "hf_": r"\bhf_[A-Za-z]{34}\b",
        "npm_": r"\bnpm_[A-Za-z0-9]{36}\b",
        "pypi-": r"\bpypi-AgE[\w-]{50,}",
        "SG.": r"\bSG\.[\w-]{20,}\.[\w-]{20,}",  # SendGrid
        ".eyJ": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # JSON web tokens
    }.items()
}
_STRING = re.compile(r"""["'`]([A-Za-z0-9+/=_-]{32,200})["'`]""")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
# What a string of one case must be called to count: most are checksums and test vectors. Between name and string there
# may be a bracket and a type, as in `os.environ["TOKEN"] = `, `token: str = ` and `const char token[] = `.
_NAMED = re.compile(
    r"""(?:api[-_]?key|secret|token|passw(?:or)?d|private[-_]?key|credential)[\w-]*["']?[\s\w\]\[:.&<>|?]*
    (?:[:=,]|=>)\s*b?$""",
    re.I | re.X,
)

ENTROPY = 4.5
"""Bits per character from which a mixed string of 32 and more counts as random; English in camel case has about 4."""
HEX_ENTROPY = 3.0

_NAME_LENGTH = 40


def holds_secret(text: str) -> bool:
    """Whether anything in a text looks like a secret. Alphabets, whose characters follow each other, do not."""
    if any(mark in text and pattern.search(text) for mark, pattern in _SHAPES.items()):
        return True
    return any(
        _looks_random(found[1], text[max(0, found.start() - _NAME_LENGTH) : found.start()])
        for found in _STRING.finditer(text)
    )


def _looks_random(string: str, before: str) -> bool:
    one_case = _HEX.fullmatch(string) or (string.lower() == string and sum(map(str.isdigit, string)) > len(string) / 8)
    if one_case:
        return _entropy(string) >= HEX_ENTROPY and _NAMED.search(before) is not None
    mixed = all(re.search(kind, string) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return mixed and _entropy(string) >= ENTROPY and not _is_ordered(string)


def _entropy(string: str) -> float:
    """Bits per character of a string's own distribution."""
    return -sum(count / len(string) * math.log2(count / len(string)) for count in Counter(string).values())


def _is_ordered(string: str) -> bool:
    following = sum(ord(right) - ord(left) == 1 for left, right in pairwise(string))
    return following > len(string) / 3
