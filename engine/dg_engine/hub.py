"""Models by the names they have on the Hugging Face hub: from this machine's cache, fetched only on explicit request.

A name is `OWNER/NAME` or `OWNER/NAME@COMMIT`. Loading never touches the network. Downloading needs the commit, because
a branch is whatever its owner last put there, and takes safetensors and JSON files, nothing that could be run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from dg_engine import paths
from dg_engine.errors import CheckpointError

_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<commit>[^@/]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["*.safetensors", "*.json"]


class _Reference(NamedTuple):
    repository: str
    commit: str | None


def resolve(model: str) -> Path:
    """The directory of a model: itself, or where the hub's cache has it; empty is the one that comes with the package.

    Raises:
        CheckpointError: it is named as on the hub, and the cache does not have it, or has it at several commits.
    """
    if not model:
        return paths.shipped_model()
    reference = None if Path(model).exists() else _reference(model)
    return Path(model) if reference is None else _cached(reference)


def download(model: str) -> Path:
    """Fetch a model's safetensors and JSON files into the hub's cache, and say where they lie.

    Raises:
        CheckpointError: the name is not `OWNER/NAME@COMMIT`, or the hub does not have it, or cannot be reached.
    """
    import httpx
    from huggingface_hub import constants, errors, snapshot_download

    # The library would say which programs run here. A constant, because the environment was read when it was imported.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    reference = _reference(model)
    if reference is None or reference.commit is None:
        raise CheckpointError(f"{model}: expected OWNER/NAME@COMMIT, with the 40 digits of the commit wanted")
    try:
        found = snapshot_download(reference.repository, revision=reference.commit, allow_patterns=_WANTED)
    except (errors.HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{model}: cannot be fetched from the hub ({reason})") from error
    return Path(found)


def _reference(model: str) -> _Reference | None:
    matched = _NAME.fullmatch(model)
    if matched is None:
        return None
    commit = matched["commit"]
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise CheckpointError(f"{model}: a commit has 40 hexadecimal digits; a branch can change and is not taken")
    return _Reference(matched["repository"], commit)


def _cached(reference: _Reference) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=reference.repository, repo_type="model")
    snapshots = Path(constants.HF_HUB_CACHE, folder, "snapshots")
    found = sorted(path.name for path in snapshots.iterdir()) if snapshots.exists() else []
    commit = reference.commit or (found[0] if len(found) == 1 else None)
    if commit in found:
        return snapshots / commit
    if found and commit is None:
        raise CheckpointError(f"{reference.repository}: is in the cache at {', '.join(found)}; add @ and one of them")
    wanted = f"{reference.repository}@{commit or 'COMMIT'}"
    raise CheckpointError(f"{wanted}: is no directory and not in the hub's cache; try: dg-engine download {wanted}")
