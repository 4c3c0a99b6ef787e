"""Kernels are compiled without a GPU, and the table of what they take holds."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is for Linux")

from dg_kernels.aot import ARCHITECTURES, Resources, Table, compile_launch, launches, read_table, violations

BY_CAPABILITY = {architecture.capability: architecture for architecture in ARCHITECTURES}


@pytest.mark.parametrize("capability", [89, 90])
def test_a_kernel_compiled_now_keeps_the_table(capability: int) -> None:
    architecture = BY_CAPABILITY[capability]
    ((name, launch),) = launches(architecture, "^expert_mlp: down_product")
    found = compile_launch(launch, architecture)
    assert violations(read_table(), name, found, architecture, launch) == []
    assert found.tensor_core == architecture.tensor_core


def test_the_table_has_every_kernel_on_every_architecture_and_nothing_else() -> None:
    wanted = {(name, a.capability) for a in ARCHITECTURES for name, _ in launches(a)}
    table = read_table().kernels
    assert {(name, int(key.removeprefix("sm_"))) for name, row in table.items() for key in row} == wanted


def test_nothing_in_the_table_spills_or_needs_more_than_its_device_has() -> None:
    for name, row in read_table().kernels.items():
        for key, found in row.items():
            assert found.spills == 0, name
            assert found.shared <= BY_CAPABILITY[int(key.removeprefix("sm_"))].shared, name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"registers": 81}, "takes 81 registers, the table allows 80"),
        ({"spills": 4}, "takes 4 bytes of spills, the table allows 0"),
        ({"shared": 1001}, "takes 1001 bytes shared, the table allows 1000"),
        ({"tensor_core": ""}, "multiplies by no tensor core, not HGMMA"),
        ({"tensor_core": "HGMMA+HMMA"}, "multiplies by HGMMA+HMMA, not HGMMA"),
    ],
)
def test_what_is_worse_than_the_table_is_said(change: dict[str, int | str], complaint: str) -> None:
    architecture = BY_CAPABILITY[90]
    ((name, launch),) = launches(architecture, "^expert_mlp: down_product")
    allowed = {"registers": 80, "spills": 0, "shared": 1000, "tensor_core": "HGMMA"}
    table = Table("any", {name: {"sm_90": Resources(**allowed)}})  # type: ignore[arg-type]
    assert violations(table, name, Resources(**allowed), architecture, launch) == []  # type: ignore[arg-type]
    found = Resources(**allowed | change)  # type: ignore[arg-type]
    assert violations(table, name, found, architecture, launch) == [f"{name} on sm_90 {complaint}"]


def test_a_kernel_that_is_not_in_the_table_is_said() -> None:
    architecture = BY_CAPABILITY[90]
    ((name, launch),) = launches(architecture, "^expert_mlp: down_product")
    (complaint,) = violations(Table("any", {}), name, Resources(1, 0, 0, "HGMMA"), architecture, launch)
    assert complaint.endswith("is not in the table: run python -m dg_kernels.aot --update")
