"""Tiles are found by trying: the search, what it passes over, and what it writes."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
from pathlib import Path

import pytest
import torch

from dg_kernels import tune
from dg_kernels.cases import TOY, Case
from dg_kernels.configurations import (
    FILE,
    Configurations,
    Tile,
    asked_for,
    read_configurations,
    tile_for,
    tried,
    written,
)
from dg_kernels.costs import Cost

START = Tile(rows=64, columns=64, depth=64, warps=4, stages=2)
H200 = "NVIDIA H200"


def shipped() -> Configurations:
    return read_configurations(FILE.read_bytes())


def far(tile: Tile, best: Tile) -> float:
    """How many changes lie between two tiles."""
    sizes = ("rows", "columns", "depth", "warps")
    return sum(abs(math.log2(getattr(tile, size) / getattr(best, size))) for size in sizes) + abs(
        tile.stages - best.stages
    )


def case(call: object) -> Case:
    return Case(call, Cost(1, 1), ())  # type: ignore[arg-type]  # any function will do


def test_the_search_goes_downhill_to_the_fastest_tile_and_tries_none_twice() -> None:
    best = Tile(rows=128, columns=16, depth=256, warps=8, stages=4)
    seen: list[Tile] = []

    def cost(tiles: tune.Tiles) -> float:
        seen.append(tiles["product"])
        return 1 + far(tiles["product"], best)

    assert tune.fastest({"product": START}, cost) == {"product": best}
    assert len(seen) == len(set(seen))


def test_tiles_that_cannot_be_used_are_passed_over() -> None:
    def cost(tiles: tune.Tiles) -> float:
        tile = tiles["product"]
        return math.inf if tile.rows * tile.columns > 64 * 64 else 1 / tile.rows

    assert tune.fastest({"product": START}, cost)["product"].rows == 64
    assert tune.fastest({"product": START}, lambda tiles: 1.0) == {"product": START}


def test_kernels_that_must_share_their_rows_change_them_together() -> None:
    def cost(tiles: tune.Tiles) -> float:
        first, second = tiles.values()
        return math.inf if first.rows != second.rows else 1 / first.rows

    found = tune.fastest({"up": START, "down": START}, lambda tiles: max(cost(tiles), 1 / 256))
    assert [tile.rows for tile in found.values()] == [256, 256]


def test_a_saving_within_the_noise_changes_nothing() -> None:
    assert tune.fastest({"product": START}, lambda tiles: 1.0 if tiles["product"] == START else 0.99) == {
        "product": START
    }


def test_a_tile_with_another_result_or_that_is_refused_is_not_timed() -> None:
    start = tile_for("vocabulary_head", "")

    def call() -> torch.Tensor:
        tile = tile_for("vocabulary_head", "")
        if tile.stages > start.stages:
            raise ValueError("no room")
        return torch.full((8,), 1.0 if tile.columns == start.columns else float("nan"))

    cost = tune.time_of([case(call)], torch.device("cpu"), (ValueError,))
    changes = {change["vocabulary_head"]: cost(change) for change in tune.changed({"vocabulary_head": start})}
    for tile, ratio in changes.items():
        assert (ratio == math.inf) == (tile.stages > start.stages or tile.columns != start.columns)
    assert math.inf in changes.values()
    assert any(map(math.isfinite, changes.values()))


@pytest.mark.parametrize(
    ("found", "agrees"),
    [([1.0, 2.0], True), ([1.001, 2.0], True), ([1.1, 2.0], False), ([float("nan"), 2.0], False)],
)
def test_results_agree_if_they_differ_by_rounding(found: list[float], agrees: bool) -> None:
    assert tune.agree([torch.tensor(found)], [torch.tensor([1.0, 2.0])]) is agrees


def test_of_whole_numbers_one_in_a_hundred_may_differ() -> None:
    usual = torch.arange(200)
    assert tune.agree([usual.where(usual > 1, -1)], [usual])
    assert not tune.agree([usual.where(usual > 2, -1)], [usual])


def test_cases_are_grouped_by_the_kernels_that_they_run() -> None:
    def runs(*names: str) -> Case:
        return case(lambda: [tile_for(name, "") for name in names])

    both, one = ("expert_mlp/plain/gate_up", "expert_mlp/plain/down"), ("vocabulary_head",)
    found = tune.groups([runs(*both), runs(*one), runs(*both), runs()], lambda name: True)
    assert {names: len(group) for names, group in found.items()} == {tuple(sorted(both)): 2, one: 1}
    assert set(tune.groups([runs(*both), runs(*one)], re.compile("voc.*").fullmatch)) == {one}


def test_what_is_found_is_written_for_this_device_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "configurations.json"
    file.write_bytes(FILE.read_bytes())
    lines: list[str] = []
    for names in (("vocabulary_head",), ("expert_mlp/plain/down", "expert_mlp/plain/gate_up")):
        tune.tune(
            {names: []},
            f"{H200} NVL",
            lambda group: lambda tiles: math.prod(1 / tile.depth for tile in tiles.values() if tile.depth <= 256),
            file,
            lines.append,
        )
    found = read_configurations(file.read_bytes())
    assert found.tile("vocabulary_head", f"{H200} NVL").depth == 256
    assert found.tile("expert_mlp/plain/down", f"{H200} NVL").depth == 256
    assert found.tile("soft_embedding", f"{H200} NVL") == shipped().tile("soft_embedding", H200)
    assert found.families[0].devices == [f"{H200} NVL"]
    assert found.families[1:] == shipped().families
    assert any("vocabulary_head: 128 x 128 x 64, 8 warps, 3 stages -> 128 x 128 x 256" in line for line in lines)


def test_what_proved_best_as_it_was_is_known_to_be_tuned(tmp_path: Path) -> None:
    file = tmp_path / "configurations.json"
    file.write_bytes(FILE.read_bytes())
    assert tune.tune({("vocabulary_head",): []}, H200, lambda group: lambda tiles: 1.0, file, lambda line: None)
    found = read_configurations(file.read_bytes())
    assert tune.tuned(found, H200) == {"vocabulary_head": shipped().tile("vocabulary_head", H200)}
    assert found.families[1:] == shipped().families
    assert tune.tuned(found, f"{H200} NVL") == {}


def test_a_kernel_that_cannot_be_tuned_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    def cost(group: list[Case]) -> tune.Cost:
        if group:
            raise RuntimeError("out of memory")
        return lambda tiles: 1.0

    file, lines = tmp_path / "configurations.json", list[str]()
    file.write_bytes(FILE.read_bytes())
    found: dict[tuple[str, ...], list[Case]] = {("soft_embedding",): [case(None)], ("vocabulary_head",): []}
    assert not tune.tune(found, H200, cost, file, lines.append)
    assert lines[0] == "soft_embedding: failed: RuntimeError: out of memory"
    assert set(tune.tuned(read_configurations(file.read_bytes()), H200)) == {"vocabulary_head"}


def test_the_shipped_file_is_as_it_would_be_written() -> None:
    assert written(shipped()) == FILE.read_bytes()


def test_tiles_are_tried_inside_and_forgotten_after() -> None:
    usual = tile_for("soft_embedding", H200)
    with tried({"soft_embedding": START}), asked_for() as names:
        assert tile_for("soft_embedding", H200) == START
        with tried({"packed_linear/int4": START}):
            assert tile_for("soft_embedding", H200) == tile_for("packed_linear/int4", H200) == START
    assert names == {"soft_embedding", "packed_linear/int4"}
    assert tile_for("soft_embedding", H200) == usual


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is for Linux")
def test_the_command_tunes_what_is_left_and_writes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a device, of which the deepest tiles are the fastest."""
    before, file = FILE.read_bytes(), tmp_path / "tiles.json"

    def using(name: str) -> Case:
        return case(lambda: torch.full((1,), float(tile_for(name, H200).depth > 0)))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: H200)
    monkeypatch.setattr(tune, "seconds", lambda call, device: 1 / min(tile_for("soft_embedding", H200).depth, 256))
    monkeypatch.setattr(tune, "tuned_cases", lambda *given: map(using, ["soft_embedding"]))
    for said in ("soft_embedding: ", "no kernel with a tile"):
        assert tune.main(["--file", str(file)]) == 0
        assert capsys.readouterr().out.startswith(said)
    found = read_configurations(file.read_bytes())
    assert tune.tuned(found, H200).keys() == {"soft_embedding"}
    assert found.tile("soft_embedding", H200).depth == 256
    assert FILE.read_bytes() == before
    monkeypatch.setattr(tune, "tuned_cases", lambda *given: map(using, ["soft_embedding", "vocabulary_head"]))
    assert tune.main(["--file", str(file), "--fresh", "--kernels", "soft.*"]) == 0
    assert capsys.readouterr().out.startswith("soft_embedding: ")


def test_without_a_device_it_says_so_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    before = FILE.read_bytes()
    assert tune.main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
    assert FILE.read_bytes() == before
    # Here every operation is PyTorch's, which has no tiles.
    assert tune.groups(itertools.islice(tune.tuned_cases(TOY, torch.device("cpu")), 3), lambda name: True) == {}
