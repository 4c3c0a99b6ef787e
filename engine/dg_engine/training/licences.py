"""Which licence a distribution declares, as an SPDX expression, and whether its code may be learnt from.

Read in the order of trust: `License-Expression` (PEP 639), the trove classifiers, the `License` field, the text of the
licence files. One copyleft or unknown part is enough to refuse the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.message import Message

from dg_engine.errors import EngineError

PERMISSIVE = frozenset(
    (
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "BlueOak-1.0.0",
        "CC0-1.0",
        "HPND",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "NCSA",
        "PSF",
        "PSF-2.0",
        "Python-2.0",
        "Python-2.0.1",
        "Unlicense",
        "Zlib",
        "ZPL-2.1",
    )
)
"""SPDX identifiers; `BSD` and `PSF` stand for a declaration that does not say which of the family."""

# What people write in place of an identifier, the more specific first.
_WORDS = (
    (r"apache", "Apache-2.0"),
    (r"3-clause|new bsd|modified bsd", "BSD-3-Clause"),
    (r"2-clause|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd\b", "BSD"),
    (r"\bisc\b", "ISC"),
    (r"python software foundation|\bpsf", "PSF"),
    (r"cmu|historical permission", "HPND"),
    (r"zope public", "ZPL-2.1"),
    (r"\bmit\b", "MIT"),
    (r"\bunlicense\b", "Unlicense"),
)
# All words that a permissive licence's name may have: any other may take back what they give.
_HARMLESS = """
a and apache approved asl attribution bsd clause cmu disclaimer expat file foundation historical hpnd http https in isc
iscl licence license licensed licenses mit modified new no notice of or org osi permission psf public python revised see
simplified software style terms the three two txt under unlicense v version www x zope zpl
"""
_HARMLESS_WORDS = frozenset(_HARMLESS.split())

# Sentences by which a licence file is known when nothing else says what it is; of several the first counts. Python's
# own licence names the GPL without a version, and permissive ones stand in the appendices of others.
_SENTENCES = (
    ("gnu affero general public license", "AGPL"),
    ("gnu lesser general public license", "LGPL"),
    ("gnu library general public license", "LGPL"),
    ("gnu general public license version", "GPL"),
    ("python software foundation license version 2", "PSF-2.0"),
    ("gnu general public license", "GPL"),
    ("mozilla public license", "MPL-2.0"),
    ("eclipse public license", "EPL"),
    ("common development and distribution license", "CDDL"),
    ("european union public licence", "EUPL"),
    ("server side public license", "SSPL"),
    ("business source license", "BUSL"),
    ("commons clause", "Commons-Clause"),
    ("elastic license", "Elastic-2.0"),
    ("functional source license", "FSL"),
    ("creative commons attribution-", "CC-BY-NC or -SA"),
    ("non-commercial", "non-commercial"),
    ("noncommercial", "non-commercial"),
    ("for good, not evil", "JSON"),
    ("permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    ("neither the name of", "BSD-3-Clause"),
    ("redistribution and use in source and binary forms", "BSD-2-Clause"),
    ("apache license version 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("permission to use, copy, modify, and/or distribute this software", "ISC"),
    ("permission to use, copy, modify, and distribute this software", "ISC"),
    ("boost software license - version 1.0", "BSL-1.0"),
    ("this is free and unencumbered software released into the public domain", "Unlicense"),
    ("this software is provided 'as-is', without any express or implied warranty", "Zlib"),
)

# A longer `License` field is a licence's text, which may name other licences, not the name of one, unless it is an
# expression.
_NAME_LENGTH = 100
_EXPRESSION = re.compile(r"\(*[\w.+-]+\)*(?: (?:AND|OR|WITH) \(*[\w.+-]+\)*)+")

# What a single file says of itself, at its top, whatever the project's licence is.
_NOTICE = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
# Words of a notice may stand on two lines of a comment. A bare GPL is only named, unless the sentence puts the file
# under it.
_FORBIDDING_NOTICE = re.compile(
    r"""GNU GAP (?:(?:Lesser|Library|Affero) GAP )?General GAP Public
    | (?:Mozilla|Eclipse|Server GAP Side) GAP Public GAP License
    | (?:Business GAP Source|Elastic|Functional GAP Source) GAP License
    | (?:licen[sc]ed|released|distributed|free GAP software|(?:distribute|modify) GAP it) GAP under GAP (?:the GAP )?
      (?:terms GAP of GAP (?:the GAP )?)?(?:GNU GAP )?[AL]?GPL
    | ^[ \t\#*/;"']*_*licen[sc]e_*["']?[ \t]*[:=][ \t]*["']?(?:GNU[ \t]+)?[AL]?GPL
    | proprietary GAP and GAP confidential | confidential GAP and GAP proprietary
    | \bCC[ -]BY[ -](?:NC|ND|SA)\b""".replace("GAP", r"[\s\#*/]+"),
    re.I | re.M | re.X,
)
_NOTICE_CHARACTERS = 3000


class LicenceRefused(EngineError):
    """A distribution's licence is copyleft, proprietary or unknown; the message says which."""


def permissive_licence(metadata: Message, licence_texts: Iterable[str]) -> str:
    """The SPDX expression of a distribution.

    Args:
        metadata: the parsed `METADATA` of a wheel.
        licence_texts: the contents of its licence files.

    Raises:
        LicenceRefused: not every part of it is permissive, or there is no licence to be found.
    """
    expression = _declared(metadata) or licence_of(licence_texts)
    if not expression:
        raise LicenceRefused("no licence found")
    if not is_permissive(expression):
        raise LicenceRefused(f"licence {expression}")
    return expression


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression lets the reader choose only permissive licences."""
    if "(" in expression:
        return all(part in PERMISSIVE for part in re.findall(r"[^\s()]+", expression) if part not in ("AND", "OR"))
    return any(all(part.strip() in PERMISSIVE for part in way.split(" AND ")) for way in expression.split(" OR "))


def licence_of(texts: Iterable[str]) -> str:
    """The SPDX expression of some licence files together, of names in `PERMISSIVE` and others; empty without any."""
    found = []
    for text in texts:
        flat = " ".join(text.lower().split())
        found.append(next((identifier for sentence, identifier in _SENTENCES if sentence in flat), "unknown"))
    return " AND ".join(dict.fromkeys(found))


def notice_forbids(text: str) -> bool:
    """Whether a source file's own notice says that it is under another licence than a permissive one."""
    head = text[:_NOTICE_CHARACTERS]
    if named := _NOTICE.findall(head):
        names = (name.removesuffix("*/").removesuffix("-->").strip(" '\"") for name in named)
        return not all(map(is_permissive, names))
    return _FORBIDDING_NOTICE.search(head) is not None


def _declared(metadata: Message) -> str:
    if expression := _field(metadata, "License-Expression"):
        return expression
    classifiers = [str(value).split("::")[-1].strip() for value in metadata.get_all("Classifier", [])]
    licences = [name for name, value in zip(classifiers, metadata.get_all("Classifier", []), strict=True)
                if str(value).startswith("License ::") and name != "OSI Approved"]  # fmt: skip
    names = [name for name in [*licences, _field(metadata, "License")] if _is_name(name)]
    found = _without_families(list(dict.fromkeys(_identifier(name) for name in names)))
    return " AND ".join(f"({one})" if " OR " in one and len(found) > 1 else one for one in found)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _NAME_LENGTH or _EXPRESSION.fullmatch(text) is not None


def _field(metadata: Message, name: str) -> str:
    value = " ".join(str(metadata.get(name) or "").split())
    return "" if value.upper() == "UNKNOWN" else value


def _identifier(name: str) -> str:
    if name in PERMISSIVE or " AND " in name or " OR " in name or not _is_harmless(name):
        return name
    return next((identifier for words, identifier in _WORDS if re.search(words, name, re.I)), name)


def _is_harmless(name: str) -> bool:
    return _HARMLESS_WORDS.issuperset(re.findall(r"[a-z]+", name.lower()))


def _without_families(identifiers: list[str]) -> list[str]:
    """`BSD` beside `BSD-3-Clause` says nothing more."""
    return [one for one in identifiers if not any(other.startswith(f"{one}-") for other in identifiers)]
