"""The checkpoints that an editor can offer to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dg_engine import paths


class Known(NamedTuple):
    """A checkpoint: two texts for people, the value of the setting `engine.model`, and whether that is in force."""

    name: str
    model: str
    description: str
    current: bool


def name(model: str) -> str:
    """What people call the model of this setting: the last part of its path, `small` for the one that ships."""
    return Path(model).name or paths.shipped_model().name


def known(current: str) -> list[Known]:
    """The checkpoint that ships, and the one in force if that is another."""
    shipped = paths.shipped_model()
    megabytes = sum(file.stat().st_size for file in shipped.glob("*.safetensors")) / 1e6
    models = [Known(name(""), "", f"ships with dg-lsp, {megabytes:.0f} MB, runs on any CPU", not current)]
    if current:
        models.append(Known(name(current), current, current, current=True))
    return models
