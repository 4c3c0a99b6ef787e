"""The fastest tiles of the device that is here, found by trying; `configurations.json` is written anew.

    python -m dg_kernels.tune                        # all kernels, at the shapes of DiffusionGemma-26B-A4B
    python -m dg_kernels.tune --kernels 'expert.*'   # those whose name matches
    python -m dg_kernels.tune --file tiles.json      # the file that ships stays as it is

From the tiles in use, one size at a time is doubled or halved, or one stage added or taken away, and the fastest such
change is kept until none saves 2 %. A tile that the device has no room for is passed over, and so is one with another
result. What is found for a kernel is written before the next is begun, so a run may be ended at any time: the next goes
on with the kernels that have no tile of this very device, or begins anew with `--fresh`. Afterwards `pytest
tests/kernels` proves the tiles, and `python -m dg_kernels.aot --update` tells what they take.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from dg_kernels.bench import one_line, say, seconds
from dg_kernels.cases import FULL, Case, Sizes, cases, narrow_cases
from dg_kernels.configurations import (
    FILE,
    Configurations,
    Family,
    Tile,
    asked_for,
    read_configurations,
    replace_file,
    tried,
    written,
)

Tiles = Mapping[str, Tile]
"""By kernel."""
Cost = Callable[[Tiles], float]
"""What tiles take, in any unit; infinite where they cannot be used."""

_LEAST_GAIN = 0.02
_SIZES = ("rows", "columns", "depth", "warps")
_AGREEING = 0.99
"""Of whole numbers: a tile sums in another order, which decides ties between tokens anew."""
_ERROR = 0.01
"""Root mean square of what two tiles may differ by, over that of the result: a few units in the last place of bf16."""


def fastest(start: Tiles, cost: Cost, report: Callable[[float], None] = lambda cost: None) -> Tiles:
    """Go downhill from tiles that can be used, all changes of one step at a time.

    Args:
        start: the tiles in use of kernels that run together.
        cost: is asked once for the same tiles.
        report: told the cost of each that is tried, the first being the start.
    """
    known: dict[tuple[Tile, ...], float] = {}

    def asked(tiles: Tiles) -> float:
        key = tuple(tiles.values())
        if key not in known:
            known[key] = cost(tiles)
            report(known[key])
        return known[key]

    best, taken = start, asked(start)
    while True:
        found = min(changed(best), key=asked)
        if asked(found) > taken * (1 - _LEAST_GAIN):
            return best
        best, taken = found, asked(found)


def changed(tiles: Tiles) -> Iterator[Tiles]:
    """One step away: of one tile, or of the rows of all, which kernels that run together may have to share."""
    for name, tile in tiles.items():
        for one in _neighbours(tile):
            yield {**tiles, name: one}
    for factor in (0.5, 2):
        several = {name: _resized(tile, "rows", factor) for name, tile in tiles.items()}
        if len(tiles) > 1 and all(several.values()):
            yield several  # type: ignore[misc]  # none is None


def _neighbours(tile: Tile) -> Iterator[Tile]:
    for name in _SIZES:
        yield from filter(None, (_resized(tile, name, factor) for factor in (0.5, 2)))
    for stages in (tile.stages - 1, tile.stages + 1):
        if made := _made(tile, stages=stages):
            yield made


def _resized(tile: Tile, name: str, factor: float) -> Tile | None:
    return _made(tile, **{name: int(getattr(tile, name) * factor)})


def _made(tile: Tile, **sizes: int) -> Tile | None:
    """None where there is no such tile."""
    try:
        return msgspec.structs.replace(tile, **sizes)
    except ValueError:
        return None


def time_of(group: Sequence[Case], device: torch.device, refusals: tuple[type[Exception], ...]) -> Cost:
    """The geometric mean of what each case takes, over what it takes with the tiles in use.

    Args:
        group: cases of the same kernels.
        device: they run there.
        refusals: what is raised where tiles cannot be used.
    """
    usual = [_flat(case.call()) for case in group]
    times = [seconds(case.call, device) for case in group]

    def cost(tiles: Tiles) -> float:
        with tried(tiles):
            try:
                if not all(agree(_flat(case.call()), result) for case, result in zip(group, usual, strict=True)):
                    return math.inf
                ratios = [seconds(case.call, device) / time for case, time in zip(group, times, strict=True)]
            except refusals:
                return math.inf
        return math.prod(ratios) ** (1 / len(ratios))

    return cost


def _flat(result: Any) -> list[Tensor]:
    return [one for one in (result if isinstance(result, tuple) else (result,)) if isinstance(one, Tensor)]


def agree(found: Sequence[Tensor], usual: Sequence[Tensor]) -> bool:
    """Whether results differ by rounding alone."""
    for one, other in zip(found, usual, strict=True):
        if not other.is_floating_point():
            if float((one == other).float().mean()) < _AGREEING:
                return False
            continue
        error, size = (one.float() - other.float()).pow(2).mean(), other.float().pow(2).mean()
        # Not the other way round: of NaN neither is true.
        if not float(error) <= _ERROR**2 * float(size):
            return False
    return True


def tuned_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Between them they run every kernel that has a tile."""
    for made in {**cases(sizes, device), **narrow_cases(sizes, device)}.values():
        yield made()


def groups(known: Iterable[Case], is_wanted: Callable[[str], object]) -> dict[tuple[str, ...], list[Case]]:
    """Cases by the kernels with tiles that they run, where one of these is wanted."""
    found: dict[tuple[str, ...], list[Case]] = {}
    for case in known:
        with asked_for() as names:
            case.call()
        if any(map(is_wanted, names)):
            found.setdefault(tuple(sorted(names)), []).append(case)
    return found


def tune(
    found: Mapping[tuple[str, ...], list[Case]],
    device: str,
    cost: Callable[[list[Case]], Cost],
    file: Path,
    report: Callable[[str], None],
) -> bool:
    """Tune group by group, and write what is found for the device of that name into a file.

    Returns:
        Whether all could be tuned; of the others the report says why.
    """
    whole = True
    for names, group in found.items():
        configurations = read_configurations(file.read_bytes())
        start = {name: configurations.tile(name, device) for name in names}
        ratios: list[float] = []
        try:
            best = fastest(start, cost(group), ratios.append)
        except Exception as error:  # whatever a compiler or a device may raise
            report(f"{', '.join(names)}: failed: {one_line(error)}")
            whole = False
            continue
        report(f"{', '.join(names)}: {len(ratios)} tried, {1 - min(ratios):.0%} faster")
        for name, tile in best.items():
            report(f"    {name}: {_described(start[name])} -> {_described(tile)}")
        replace_file(file, written(with_tiles(configurations, device, best)))
    return whole


def with_tiles(configurations: Configurations, device: str, tiles: Tiles) -> Configurations:
    """The same, but for the tiles of one device: it gets a family of its own, before those of which it is one."""
    families = [family for family in configurations.families if family.devices != [device]]
    own = Family([device], tuned(configurations, device) | dict(tiles))
    return msgspec.structs.replace(configurations, families=[own, *families])


def tuned(configurations: Configurations, device: str) -> dict[str, Tile]:
    """The tiles that were found on a device, those that proved best as they were among them."""
    return next((family.tiles for family in configurations.families if family.devices == [device]), {})


def _described(tile: Tile) -> str:
    return f"{tile.rows} x {tile.columns} x {tile.depth}, {tile.warps} warps, {tile.stages} stages"


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> int:
    """Tune the kernels that are asked for on the device that is here."""
    parser = argparse.ArgumentParser(prog="python -m dg_kernels.tune", description="Find this device's fastest tiles.")
    parser.add_argument("--kernels", type=re.compile, default=re.compile(".*"), help="a regular expression of names")
    parser.add_argument("--file", type=Path, default=FILE, help="begun as the one that ships; default: that one")
    parser.add_argument("--fresh", action="store_true", help="also those that were tuned on this very device")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write(
            "python -m dg_kernels.tune: there is no CUDA device here; tiles are found on the device itself\n"
        )
        return 1
    from triton.errors import TritonError

    torch.manual_seed(0)
    device, name = torch.device("cuda"), torch.cuda.get_device_name()
    if not given.file.exists():
        replace_file(given.file, FILE.read_bytes())
    known = {} if given.fresh else tuned(read_configurations(given.file.read_bytes()), name)
    found = groups(tuned_cases(FULL, device), lambda kernel: given.kernels.fullmatch(kernel) and kernel not in known)
    if not found:
        say(f"no kernel with a tile that is called {given.kernels.pattern} is left to tune")
        return 0
    cost = functools.partial(time_of, device=device, refusals=(TritonError, ValueError))
    return int(not tune(found, name, cost, given.file, say))


if __name__ == "__main__":
    sys.exit(main())
