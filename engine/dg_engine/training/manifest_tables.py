"""A corpus's manifest as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.table import Table

from dg_engine.training.corpus import Manifest
from dg_engine.training.projects import SPLITS


def project_table(manifest: Manifest) -> Table:
    """A row a project: what was kept of it, under which licence, and what was left out, why."""
    table = _table(["project", "version", "split"], ["files", "tokens"], "licence", "left out")
    for one in manifest.projects:
        left_out = ", ".join(f"{reason} {count:,}" for reason, count in one.dropped.items() if count)
        table.add_row(one.name, one.version, one.split, f"{one.files:,}", f"{one.tokens:,}", one.licence, left_out)
    return table


def refused_table(manifest: Manifest) -> Table:
    """A row a project that is not in the corpus."""
    table = _table(["not in the corpus"], [], "because of")
    for one in manifest.refused:
        table.add_row(one.name, one.reason)
    return table


def split_table(manifest: Manifest) -> Table:
    """A row a split: projects, files and tokens, and the share of each language."""
    table = _table(["split"], ["projects", "files", "tokens"], "languages")
    for split in SPLITS:
        records = manifest.of(split)
        tokens = sum(one.tokens for one in records)
        languages = sum((Counter(one.languages) for one in records), Counter[str]())
        shares = ", ".join(f"{name} {count / max(1, tokens):.0%}" for name, count in languages.most_common())
        table.add_row(split, str(len(records)), f"{sum(one.files for one in records):,}", f"{tokens:,}", shares)
    return table


def dropped_table(dropped: Mapping[str, list[str]]) -> Table:
    """A row a file that was left out."""
    table = _table(["file"], [], "because of")
    for reason, paths in sorted(dropped.items()):
        for path in paths:
            table.add_row(path, reason)
    return table


def _table(names: Iterable[str], numbers: Iterable[str], *texts: str) -> Table:
    """A table whose last columns hold longer texts."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    for text in texts:
        table.add_column(text, overflow="fold")
    return table
