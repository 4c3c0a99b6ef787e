"""A checkpoint written anew with fewer bits, one matrix at a time, in the layout of compressed-tensors.

The experts alone, or with them the dense MLPs and attention, in the same format or in another. Embedding, router and
self-conditioning stay as they are: in eight bits the embedding, which is also the head, flattens the tail of the
distribution, and denoising stalls.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dg_engine.errors import CheckpointError
from dg_engine.formats.encodings import Fetch
from dg_engine.formats.headers import INDEX, Stored, reading
from dg_engine.formats.places import Place
from dg_engine.formats.plan import Plan, Source, read_plan
from dg_engine.formats.schemes import SCHEMES, Scheme, described

SHARD_BYTES = 4 * 2**30
"""A file is closed when it holds this much; so much memory the conversion takes beside a few matrices."""

_OWN = (INDEX, "config.json", "evaluation.json")
"""What says something of the weights themselves: written anew, or to be measured anew."""

_ALONE = ("self_conditioning", "router", "embed_tokens", "lm_head", "vision_tower", "embed_vision")
_PROJECTIONS = ("self_attn", "mlp")
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def quantise(
    source: Path,
    target: Path,
    format_: str,
    *,
    projections: str | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write a checkpoint that holds the matrices of another in fewer bits.

    Args:
        source: a checkpoint that is not quantised.
        target: a directory that does not exist; it appears when it is whole.
        format_: of the experts: nvfp4, fp8 or int4.
        projections: that of attention and of the dense MLPs; None leaves these as they are.
        report: told how many of how many tensors are done.

    Raises:
        CheckpointError: the source is malformed or already quantised, a matrix's width does not suit the format, or the
            target exists.
    """
    wanted = _Wanted(SCHEMES[format_], None if projections is None else SCHEMES[projections])
    if target.exists():
        raise CheckpointError(f"{target}: exists; name a directory that does not")
    plan = read_plan(source)
    chosen, kept = _chosen(plan, wanted), _kept(plan, wanted)
    with _appearing(target) as partial, reading("cpu") as fetch:
        plan.check_copies(fetch)
        shards = _Shards(partial)
        for done, tensors in enumerate(_tensors(chosen, kept, wanted, fetch), 1):
            shards.add(tensors)
            report(done, len(chosen) + len(kept))
        shards.close()
        _write_rest(source, partial, wanted.described())


class _Wanted(NamedTuple):
    """What is to become of which matrices."""

    experts: Scheme
    projections: Scheme | None
    """Of attention and dense MLPs."""

    def of(self, name: str) -> Scheme | None:
        """What is to become of a parameter; None if it stays."""
        parts = name.split(".")
        if "experts" in parts:
            return self.experts
        return None if set(parts).isdisjoint(_PROJECTIONS) or not name.endswith("_proj.weight") else self.projections

    def described(self) -> dict[str, Any]:
        """The `quantization_config` of such a checkpoint."""
        left = _ALONE if self.projections is not None else (*_ALONE, *_PROJECTIONS)
        groups: list[tuple[list[str], Scheme]] = [(["Linear"], self.experts)]
        if self.projections not in (None, self.experts):
            groups = [(_matrices("experts"), self.experts), (_matrices(*_PROJECTIONS), self.projections)]
        return described(groups, [f"re:.*{name}.*" for name in left])


def _matrices(*names: str) -> list[str]:
    """Patterns of the matrices within modules of such names, without the modules themselves."""
    return [f"re:.*{name}.*proj$" for name in names]


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A directory beside the target, which becomes the target if all goes well and goes if not."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(target)
    except (OSError, SafetensorError) as error:  # a full disk, which safetensors tells of in its own way
        raise CheckpointError(f"{target}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _chosen(plan: Plan, wanted: _Wanted) -> dict[Place, Source]:
    """The single matrices that are written anew, and where each lies."""
    chosen: dict[Place, Source] = {}
    for name, sources in plan.sources.items():
        scheme = wanted.of(name)
        for source in sources:
            stored, columns = source.encoded.values, source.encoded.shape[-1]
            if source.encoded.format != "plain":
                raise stored.refused(f"is {source.encoded.format} already; quantise what it came from")
            if scheme is not None:
                if columns % scheme.group:
                    raise stored.refused(f"{columns} columns are not groups of {scheme.group}")
                chosen |= dict.fromkeys(source.place.cells(plan.parameters[name]), source)
    return chosen


def _kept(plan: Plan, wanted: _Wanted) -> list[Stored]:
    """What is copied as it is; the encoder's scalars may be the decoder's, which are copied once."""
    copied = {
        source.encoded.values.name: source.encoded.values
        for name, sources in plan.sources.items()
        if wanted.of(name) is None
        for source in sources
    }
    return [*copied.values(), *plan.unread]


def _tensors(
    chosen: Mapping[Place, Source], kept: Iterable[Stored], wanted: _Wanted, fetch: Fetch
) -> Iterator[dict[str, Tensor]]:
    """What each matrix or other tensor becomes, in turn."""
    for place in chosen:
        scheme = wanted.of(place.parameter)
        assert scheme is not None  # noqa: S101  (else it were not chosen)
        together = [_matrix(each, chosen[each], fetch) for each in _together(place) if each in chosen]
        written = scheme.write(_matrix(place, chosen[place], fetch), together)
        stem = str(place).removesuffix("weight")
        yield {stem + end: tensor.contiguous() for end, tensor in written.items()}
    for stored in kept:
        yield {stored.name: fetch(stored)}


def _matrix(place: Place, source: Source, fetch: Fetch) -> Tensor:
    """The matrix at `place` within the stored tensor that covers it; the data is not read before it is looked at."""
    expert = place.expert if source.place.expert is None else None
    half = place.half if source.place.half is None else None
    return place._replace(expert=expert, half=half).of(fetch(source.encoded.values))


def _together(place: Place) -> list[Place]:
    """The matrix at `place` and those that servers multiply in one with it, and then want one scale over."""
    if place.half is not None:
        return [place._replace(half=0), place._replace(half=1)]
    module, _, end = place.parameter.removesuffix(".weight").rpartition(".")
    for group in _TOGETHER:
        if end in group:
            return [Place(f"{module}.{each}.weight") for each in group]
    return [place]


class _Shards:
    """Files of about `SHARD_BYTES`, and the index of what lies in which."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: list[list[str]] = []
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = self._total_bytes = 0

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep some tensors until there are enough for a file."""
        self._pending.update(tensors)
        self._pending_bytes += sum(tensor.nbytes for tensor in tensors.values())
        if self._pending_bytes >= SHARD_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest, name the files, write the index."""
        self._flush()
        weight_map = {}
        for number, names in enumerate(self._written):
            file = f"model-{number + 1:05}-of-{len(self._written):05}.safetensors"
            self._partial(number).replace(self._directory / file)
            weight_map.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        _write_json(self._directory / INDEX, index)

    def _flush(self) -> None:
        if self._pending:
            save_file(self._pending, self._partial(len(self._written)), metadata={"format": "pt"})
            self._written.append(list(self._pending))
            self._total_bytes += self._pending_bytes
            self._pending, self._pending_bytes = {}, 0

    def _partial(self, number: int) -> Path:
        return self._directory / f"{number}.partial"


def _write_rest(source: Path, directory: Path, described: Mapping[str, Any]) -> None:
    """Tokenizer, templates and settings as they are, the configuration with what was done."""
    for file in sorted(source.iterdir()):
        if file.suffix in (".json", ".jinja") and file.name not in _OWN:
            shutil.copyfile(file, directory / file.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    _write_json(directory / "config.json", config | {"quantization_config": dict(described)})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
