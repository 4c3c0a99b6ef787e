"""The runs of each study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["scaling", "ablations"]

_CAUSAL_ALONE = ("schedule.causal_until=1", "schedule.joint_until=1")
_JOINT_FROM_THE_START = ("schedule.causal_until=0",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One run."""

    name: str
    """Also of its folder."""
    about: str
    shape: str = "small"
    settings: tuple[str, ...] = ()
    """As `dg-engine train --set` takes them."""
    start: str = ""
    """The run with whose weights it begins, in the same study; none if empty."""
    share: float = 1.0
    """Of the minutes of a run from nothing."""


def _joint(name: str, about: str, *settings: str) -> Variant:
    return Variant(
        name=name,
        about=about,
        settings=(*_JOINT_FROM_THE_START, *(f"schedule.objective.{setting}" for setting in settings)),
        start="causal",
        share=5 / 9,
    )


STUDIES: dict[Name, tuple[Variant, ...]] = {
    "scaling": (
        Variant(name="tiny", about="3 layers of width 192", shape="tiny"),
        Variant(name="small", about="6 layers of width 256"),
        Variant(name="base", about="6 layers of width 384", shape="base"),
    ),
    "ablations": (
        Variant(name="small", about="causal loss alone for 0.3 of the run, as by default"),
        Variant(name="causal-first-0", about="causal loss alone never", settings=_JOINT_FROM_THE_START),
        Variant(
            name="causal-first-0.6",
            about="causal loss alone for 0.6 of the run",
            settings=("schedule.causal_until=0.6",),
        ),
        Variant(name="causal", about="causal loss alone to the end", settings=_CAUSAL_ALONE),
        _joint("joint", "all losses, as by default, behind that run"),
        _joint("pinned-signal-off", "pinned slots not told in the first pass", "pinned_signal=false"),
        _joint("filler-0.1", "filler weighs 0.1, not 0.3", "filler_weight=0.1"),
        _joint("filler-1", "filler weighs 1", "filler_weight=1.0"),
        _joint("noise-0", "no canvas is all noise, not 0.2 of them", "all_noise_share=0.0"),
        _joint("noise-0.5", "half of the canvases are all noise", "all_noise_share=0.5"),
    ),
}
