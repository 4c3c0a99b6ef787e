"""Which files are never read, never sent and never learnt from: secrets by their names, and what the user's rules say.

Rules are lines in the manner of `.gitignore`, matched without regard to case:

- the built-in ones, against the whole path; only the user's own settings can take one back, with `!`, since a rule
  that comes with a checked-out repository must not open a file of secrets;
- the globs of the settings, against the path within each workspace folder;
- `.dglspignore` files in the folders above a file, each for what lies beneath it.

A path and what it links to must both be free. A rule that cannot be read blocks every file: nobody can tell what it
meant to protect. No excluded file is opened here; what is read are the ignore files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

IGNORE_FILE = ".dglspignore"

SECRETS = (
    ".env*",
    ".envrc",
    ".dev.vars",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".git-credentials",
    ".htpasswd",
    "*.cer",
    "*.cert",
    "*.crt",
    "*.db",
    "*.der",
    "*.jks",
    "*.kdbx",
    "*.key",
    "*.keystore",
    "*.ovpn",
    "*.p12",
    "*.pem",
    "*.pfx",
    "*.ppk",
    "*.sqlite",
    "*.sqlite3",
    "*.tfstate",
    "*.tfvars",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "id_rsa*",
    "credentials",
    "credentials.*",
    "secret.*",
    "secrets.*",
    "secrets/",
    ".aws/",
    ".azure/",
    ".gcloud/",
    ".gnupg/",
    ".kube/",
    ".ssh/",
)
"""Names behind which secrets are kept, by custom."""


class BrokenRules(Exception):
    """A rule or an ignore file cannot be understood; the message says which and why."""


class _Stamp(NamedTuple):
    """What tells one state of a file from another."""

    modified_ns: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Stamp:
        return cls(status.st_mtime_ns, status.st_size)


class Exclusions:
    """The rules of one workspace: `folders` and the `globs` of its settings. Ignore files are read anew on change."""

    def __init__(self, folders: Sequence[Path] = (), globs: Sequence[str] = ()) -> None:
        self._folders = tuple(dict.fromkeys(name for folder in folders for name in _names(folder)))
        self._cache: dict[Path, tuple[_Stamp, GitIgnoreSpec]] = {}
        self._broken: str | None = None
        self._secrets, self._globs = GitIgnoreSpec([]), GitIgnoreSpec([])
        try:
            self._globs = _spec(globs, "the setting `exclude`")
            allowed = [glob for glob in globs if glob.startswith("!")]
            self._secrets = _spec([*SECRETS, *allowed], "the setting `exclude`")
        except BrokenRules as error:
            self._broken = _blocked(error)

    def reason(self, path: Path | None, uri: str) -> str | None:
        """Why the document is left alone, in one sentence, or None. `path` is None for one that is on no disk."""
        if self._broken is not None:
            return self._broken
        if path is None:
            return self._reason_by_address(uri)
        try:
            for name in dict.fromkeys((path.absolute(), path.resolve())):
                found = self._reason_by_name(name) or self._reason_by_file(name)
                if found is not None:
                    return found
        except (BrokenRules, OSError, RuntimeError) as error:  # pathlib reports a loop of links as either of the last
            return _blocked(error)
        return None

    def stamps(self, folder: Path) -> tuple[_Stamp | None, ...]:
        """The states of the ignore files that speak of what lies in a folder: where they differ, one was changed."""
        return tuple(_stamp(place / IGNORE_FILE) for place in _between(Path(folder.anchor), folder))

    def _reason_by_address(self, uri: str) -> str | None:
        try:
            path = Path("/", unquote(urlsplit(uri).path).lstrip("/"))
            # An unsaved file of a folder, or a cell of a notebook there.
            is_within = any(path.is_relative_to(folder) for folder in self._folders)
            return self._reason_by_name(path) or (self._reason_by_file(path) if is_within else None)
        except (BrokenRules, OSError) as error:
            return _blocked(error)
        except ValueError as error:
            return f"The document's address cannot be read: {error}."

    def _reason_by_name(self, path: Path) -> str | None:
        if _is_matched(self._secrets, path, Path(path.anchor)):
            return "Files of this name hold secrets, as a rule, and are left alone."
        within = [folder for folder in self._folders if path.is_relative_to(folder)] or [Path(path.anchor)]
        if any(_is_matched(self._globs, path, folder) for folder in within):
            return "The setting `exclude` names this file."
        return None

    def _reason_by_file(self, path: Path) -> str | None:
        # Each folder above the file has its say: what is open, or named to a command, may be a part of a project.
        if self._is_ignored(path, Path(path.anchor)):
            return f"An ignore file ({IGNORE_FILE}) names this file."
        return None

    def _is_ignored(self, path: Path, folder: Path) -> bool:
        """Whether the path or a folder above it is: what lies in an ignored folder no rule brings back, as with git.

        The last rule that names a place decides on it, and an ignore file nearer to it speaks later.
        """
        specs: list[tuple[Path, GitIgnoreSpec]] = []
        for place in _between(folder, path):
            verdicts = (_verdict(spec, above, place, path) for above, spec in reversed(specs))
            if next((verdict for verdict in verdicts if verdict is not None), False):
                return True
            if place != path and (spec := self._ignore_file(place / IGNORE_FILE)) is not None:
                specs.append((place, spec))
        return False

    def _ignore_file(self, path: Path) -> GitIgnoreSpec | None:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._cache.pop(path, None)
            return None
        stamp = _Stamp.of(status)
        known = self._cache.get(path)
        if known is None or known[0] != stamp:
            known = self._cache[path] = (stamp, _spec(_lines(path), str(path)))
        return known[1]


def _stamp(path: Path) -> _Stamp | None:
    with suppress(OSError):
        return _Stamp.of(path.stat())
    return None


def _names(folder: Path) -> Iterator[Path]:
    yield folder.absolute()
    with suppress(OSError, RuntimeError):  # a loop of links
        yield folder.resolve()


def _spec(rules: Iterable[str], source: str) -> GitIgnoreSpec:
    """Compile rules; BrokenRules where one of them says nothing, be it malformed or empty of meaning."""
    patterns = []
    for rule in rules:
        try:
            pattern = GitIgnoreSpecPattern(rule.lower())
        except (ValueError, re.error) as error:
            raise BrokenRules(f"{source}: {error}") from error
        if pattern.include is None and rule.strip() and not rule.startswith("#"):
            raise BrokenRules(f"{source}: {rule!r} matches nothing")
        patterns.append(pattern)
    return GitIgnoreSpec(patterns)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except ValueError as error:
        raise BrokenRules(f"{path}: {error}") from error


def _blocked(error: Exception) -> str:
    return f"No file is completed until a broken rule is mended: {error}"


def _is_matched(spec: GitIgnoreSpec, path: Path, folder: Path) -> bool:
    """Whether rules for a folder name the path or a folder above it."""
    _, *places = _between(folder, path)
    return any(_verdict(spec, folder, place, path) for place in places)


def _verdict(spec: GitIgnoreSpec, folder: Path, place: Path, path: Path) -> bool | None:
    """What the last rule says that names `place` itself, which is `path` or a folder above it; None without one."""
    name = _relative(place, folder) + ("" if place == path else "/")
    for pattern in reversed(spec.patterns):
        if pattern.include is not None and _names_itself(pattern, name):
            return pattern.include
    return None


# By which pathspec tells the slash behind the folder that a rule names; a test holds the whole to git.
_SLASH = "ps_d"


def _names_itself(pattern: GitIgnoreSpecPattern, name: str) -> bool:
    """Whether a rule names a file, or a folder that ends in a slash, and not only a folder above it."""
    assert pattern.regex is not None  # noqa: S101  (a rule that says nothing has none)
    matches = [*pattern.regex.finditer(name)]
    if not matches:
        return False
    found = matches[-1]
    if found.groupdict().get(_SLASH) is None:  # as with `src/**`, which names nothing of the name of `src/`
        return pattern.regex.search(name.removesuffix("/")) is not None
    return found.start(_SLASH) == len(name) - 1


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().lower()


def _between(folder: Path, place: Path) -> Iterator[Path]:
    """`folder`, and each folder from there down to `place`."""
    yield folder
    for part in place.relative_to(folder).parts:
        folder = folder / part
        yield folder
