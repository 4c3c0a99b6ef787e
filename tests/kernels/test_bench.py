"""The benchmark runs without a GPU, at toy size, and its table has every operation that has a kernel."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

import dg_kernels
from dg_kernels import Causal, CausalRuns, PackedWeight, VisibleRuns, bench, cases, tune
from dg_kernels.bench import Rates
from dg_kernels.configurations import FILE, read_configurations
from dg_kernels.launching import pytorch_only, served
from dg_kernels.quantised.packed import random_weight
from dg_kernels.testing import OPERATIONS

CPU = torch.device("cpu")


def test_the_table_has_every_case_with_times_and_a_floor(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--toy"]) == 0
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table[1:]] == list(cases.cases(cases.TOY, CPU))
    for row in table[1:]:
        times, megabytes, floor = row[2:4], row[4], row[6]
        assert all(float(cell) > 0 for cell in (*times, megabytes))
        assert float(floor) >= 0, "rounded to a microsecond"


def with_kernels() -> list[str]:
    """The public operations that ask whether kernels can take what they are given."""
    public = ((name, getattr(dg_kernels, name)) for name in dg_kernels.__all__)
    names = [name for name, one in public if inspect.isfunction(one) and "served" in one.__code__.co_names]
    assert {"canvas_attention", "packed_linear"} < set(names)
    return names


@pytest.mark.parametrize("name", with_kernels())
def test_every_operation_that_has_a_kernel_is_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = Mock(wraps=getattr(dg_kernels, name))
    monkeypatch.setattr(cases, name, operation)
    for made in cases.cases(cases.TOY, CPU).values():
        made().call()
    assert operation.called


def test_attention_is_timed_as_a_step_and_a_prefill_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: Counter[type] = Counter()
    monkeypatch.setattr(cases, "canvas_attention", lambda *given: masks.update([type(given[-1])]))
    for name, made in cases.cases(cases.TOY, CPU).items():
        if name.startswith("canvas_attention"):
            made().call()
    assert masks == {VisibleRuns: 2, Causal: 2, CausalRuns: 2}


def test_weights_that_a_cache_would_hold_lie_in_memory_in_copies_of_which_each_call_takes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = random_weight("nvfp4", (32, 64), 0.1, torch.Generator().manual_seed(0))
    call = cases.from_memory(lambda one: one, weight)
    assert call() is call(), "without such a cache once is enough"
    monkeypatch.setattr(cases, "cache_bytes", lambda device: 2 * weight.nbytes)
    call = cases.from_memory(lambda one: one, weight)
    first, second, third, fourth, again = (call() for _ in range(5))
    assert first is again
    places = {one.data_ptr() for each in (first, second, third, fourth) for one in (each.values, each.factor)}
    assert len(places) == 8
    x = torch.ones(1, 64)
    assert torch.equal(dg_kernels.packed_linear(x, first), dg_kernels.packed_linear(x, third))


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("canvas_attention, sliding layer", "canvas_attention"),
        ("expert_mlp", "expert_mlp"),
        ("packed_expert_mlp, nvfp4", "packed_expert_mlp"),
        ("packed_linear, fp8, native", "packed_linear"),
    ],
)
def test_every_call_of_a_case_reads_other_memory(name: str, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "cache_bytes", lambda device: 2**20)
    called = Mock()
    monkeypatch.setattr(cases, operation, called)
    call = cases.cases(cases.TOY, CPU)[name]().call
    for _ in range(3):
        call()
    read = [given.args[1] for given in called.call_args_list]
    places = {(one.values if isinstance(one, PackedWeight) else one).data_ptr() for one in read}
    assert len(places) == 3


def test_a_case_that_fails_is_said_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise RuntimeError("no room\nfor it")

    monkeypatch.setattr(cases, "vocabulary_head", refused)
    assert bench.main(["--toy"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (failed,) = (line for line in lines if "failed" in line)
    assert failed.startswith("| vocabulary_head | failed: RuntimeError: no room |")
    last = list(cases.cases(cases.TOY, CPU))[-1]
    assert lines[-1].startswith(f"| {last} | PyTorch | ")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is for Linux")
def test_tuning_tries_every_tile_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """At toy size but for the heads' widths, with kernels that are planned and not run."""
    for name in OPERATIONS:
        module = importlib.import_module(f"dg_kernels.{name}")
        monkeypatch.setattr(module, "served", lambda *given, **more: True)
        monkeypatch.setattr(module, "run", lambda launches: None)
        if hasattr(module, "multiplies_e4m3"):
            monkeypatch.setattr(module, "multiplies_e4m3", lambda x: True)
    sizes = replace(cases.TOY, attentions=(("sliding layer", 2, 256), ("full layer", 1, 512)))
    found = tune.groups(tune.tuned_cases(sizes, CPU), lambda name: True)
    assert {name for names in found for name in names} == read_configurations(FILE.read_bytes()).default.keys()


def test_what_a_library_does_is_not_taken_for_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device, whose kernels are timed out of a graph and PyTorch's operations are not."""
    graphs: list[bool] = []

    def timed(call: object, device: torch.device, *, graph: bool) -> float:
        graphs.append(graph)
        return 1.0

    monkeypatch.setattr(bench, "served", lambda *given, **more: True)
    monkeypatch.setattr(bench, "seconds", timed)
    rates = Rates(bytes=1e9, flops=1e9, e4m3_flops=1e9)
    made = cases.cases(cases.TOY, CPU)
    by = {name: bench.timing(name, made[name](), CPU, rates).by for name in (cases.HEAD_PRODUCT, "vocabulary_head")}
    assert by == {cases.HEAD_PRODUCT: "PyTorch", "vocabulary_head": "Triton"}
    assert graphs == [True, True, False]


def test_kernels_are_for_bf16_on_a_gpu_without_a_gradient() -> None:
    if not torch.cuda.is_available():
        assert not served(torch.empty(1, dtype=torch.bfloat16))
        return
    one = torch.empty(1, dtype=torch.bfloat16, device="cuda")
    assert served(one)
    assert not served(one, one.float())
    assert not served(one, one.clone().requires_grad_())
    with pytorch_only():
        assert not served(one)
