"""Figures as a report for people, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dg_engine.api import ModelInfo
from dg_engine.evaluation.calibration import Reliability
from dg_engine.evaluation.cases import MEANINGS
from dg_engine.evaluation.harness import Outcome
from dg_engine.evaluation.summary import COMPARED, Figure, Figures, Group
from dg_engine.evaluation.systems import System
from dg_engine.settings import Calibration
from dg_engine.training.card import table

# Characters of an answer that is shown as an example.
_SHOWN = 100


class Column(NamedTuple):
    """How a figure is shown."""

    heading: str
    scale: int = 1


_QUALITY = {
    "passes": Column("passes tests %", 100),
    "exact": Column("exact %", 100),
    "similarity": Column("edit similarity %", 100),
    "first_line": Column("first line %", 100),
    "parses": Column("parses %", 100),
}
_BEHAVIOUR = {
    "length_error": Column("length error, tokens"),
    "empty": Column("empty %", 100),
    "repeats_suffix": Column("repeats suffix %", 100),
    "steps": Column("steps"),
    "tokens_per_step": Column("tokens per step"),
    "p50_ms": Column("p50 ms"),
    "p95_ms": Column("p95 ms"),
}


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that an evaluation found: what `evaluation.json` holds."""

    model: ModelInfo
    machine: str
    command: str
    """What measures the same again."""
    split: str
    seeds: int
    groups: dict[str, Group]
    calibrated: str
    """The system whose answers the calibration is of."""
    calibration: Calibration | None
    """Fitted to all cases of the split, for `infill_config.json`; None where too few answers were right."""
    is_the_checkpoints: bool
    """The calibration is what the checkpoint has, which was fitted to other projects; this split only judges it."""
    reliability: Reliability | None
    """Else of calibrations that were fitted to one half of the projects, on the other half."""
    weights: str = ""
    """A digest of the checkpoint's, or of those and the adapter's; empty in evaluations from before it was kept."""


def to_markdown(
    found: Findings, systems: Sequence[System], examples: Sequence[Outcome], plots: Sequence[str] = ()
) -> str:
    """The report, which is also a section of the model card.

    Args:
        found: the figures.
        systems: that were measured, for their descriptions.
        examples: shown as they came.
        plots: names of pictures beside the report.
    """
    parts = [
        "# Infill on projects that were not trained on",
        "",
        _about(found),
        "",
        f"Measured by `{found.command}`.",
        "",
        *(f"- `{one.name}`: {one.about}" for one in systems),
        *(line for kind, group in found.groups.items() for line in _section(kind, group)),
        *_differences(found.groups),
        *_calibration(found),
        *(line for plot in plots for line in ("", f"![{plot.removesuffix('.png')}]({plot})")),
        "",
        "#### Some answers as they came",
        "",
        *map(_example, examples),
    ]
    return "\n".join(parts) + "\n"


def _about(found: Findings) -> str:
    info = found.model
    seeds = f"{found.seeds} sampling seeds, averaged by case" if found.seeds > 1 else "one sampling seed"
    adapted = f" with the adapter {info.adapter}" if info.adapter else ""
    return (
        f"{info.name}{adapted}, {info.parameters:,} parameters, {info.dtype} on {info.device} ({found.machine}); split "
        f"`{found.split}`, {seeds}; at most {info.max_denoising_steps} steps, entropy bound {info.entropy_bound}, "
        "unless a system says otherwise. The length of the answer is unknown unless a system is told. In brackets 95 % "
        "intervals by two-stage bootstrap: projects, then cases within them. Times are of whole answers with an "
        "encoded prefix. Steps are passes of the model, a token being one from left to right."
    )


def _section(kind: str, group: Group) -> list[str]:
    heading = f"#### {kind}: {MEANINGS[kind]} ({group.cases:,} cases of {group.projects:,} projects)"
    named = [([name], figures) for name, figures in group.systems.items()]
    return ["", heading, "", _table(["system"], _QUALITY, named), "", _table(["system"], _BEHAVIOUR, named)]


def _differences(groups: dict[str, Group]) -> list[str]:
    named = [([kind, name], figures) for kind, group in groups.items() for name, figures in group.differences.items()]
    if not named:
        return []
    first = next(iter(next(iter(groups.values())).systems))
    compared = {name: _QUALITY[name] for name in COMPARED}
    about = f"How much better `{first}` is than each of the others on the same cases, in points:"
    return ["", "#### Differences", "", about, "", _table(["kind", "than"], compared, named)]


def _table(header: list[str], columns: dict[str, Column], named: list[tuple[list[str], Figures]]) -> str:
    """Rows of figures behind their names; a column that no row has is left out."""
    present = {name: column for name, column in columns.items() if any(name in figures for _, figures in named)}
    rows = [
        [*names, *(_cell(column, figures.get(name)) for name, column in present.items())] for names, figures in named
    ]
    return table([*header, *(column.heading for column in present.values())], rows)


def _cell(column: Column, figure: Figure | None) -> str:
    if figure is None:
        return ""
    value, low, high = (column.scale * one for one in figure)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _calibration(found: Findings) -> list[str]:
    heading = ["", "#### Calibration", ""]
    if found.calibration is None:
        return [*heading, f"Too few answers of `{found.calibrated}` are right to fit a probability of being right."]
    fitted = found.calibration
    source = (
        "as the checkpoint has it, fitted to other projects" if found.is_the_checkpoints else "fitted to this split"
    )
    about = (
        f"Probability that an answer of `{found.calibrated}` is right up to a place where it may be cut, behind a word "
        f"or at the end of a line, {source}: "
        f"logistic of {fitted.bias:.3f} {fitted.mean:+.3f} x mean log-probability (nats, by the causal twin) "
        f"{fitted.odds:+.3f} x log-odds of all tokens up to there."
    )
    judged = (
        "Judged here"
        if found.is_the_checkpoints
        else "Fitted on one half of the projects, judged on the other, both ways"
    )
    return [*heading, about, "", *_reliability(found.reliability, judged)]


def _reliability(found: Reliability | None, judged: str) -> list[str]:
    if found is None:
        return ["There are too few right answers in too few projects to fit on one half and judge on the other."]
    error = 100 * found.expected_error
    about = f"{judged}: expected calibration error {error:.1f} points over {found.heads:,} such places."
    rows = [
        [f"{one.low:.1f} to {one.high:.1f}", one.heads, f"{100 * one.predicted:.1f}", f"{100 * one.correct:.1f}"]
        for one in found.bins
    ]
    return [about, "", table(["probability", "places", "predicted %", "right %"], rows)]


def _example(outcome: Outcome) -> str:
    return f"- {outcome.project}, {outcome.kind}: wanted `{_short(outcome.truth)}`, got `{_short(outcome.answer)}`"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
