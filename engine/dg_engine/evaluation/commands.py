"""`dg-engine evaluate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dg_engine import hub
from dg_engine.bench import machine
from dg_engine.cli import load_engine
from dg_engine.engine import Engine
from dg_engine.errors import EngineError
from dg_engine.evaluation import gate as gates
from dg_engine.evaluation.calibration import evidence, fit, judged, reliability
from dg_engine.evaluation.cases import CALIBRATED, Case, draw_cases
from dg_engine.evaluation.copy_trust import fit as fit_trust
from dg_engine.evaluation.copy_trust import runs
from dg_engine.evaluation.harness import Outcome, count, run
from dg_engine.evaluation.humaneval import read_tasks
from dg_engine.evaluation.ledger import Ledger, run_name
from dg_engine.evaluation.length_bias import fit as fit_bias
from dg_engine.evaluation.length_bias import mean_sureness
from dg_engine.evaluation.plots import plot
from dg_engine.evaluation.report import Findings, to_markdown
from dg_engine.evaluation.summary import summarise
from dg_engine.evaluation.systems import System, chosen
from dg_engine.options import THREADS, dtype_option
from dg_engine.settings import LengthProbe, read_infill_config
from dg_engine.training.card import FINDINGS_FILE, REPORT_FILE, weights_digest
from dg_engine.training.corpus import documents, write_json
from dg_engine.training.projects import Split
from dg_engine.training.sources import Document

_OF_ENGINES = {"model", "adapter", "device", "threads", "dtype"}
_READ = {
    "gate": {*_OF_ENGINES, "update"},
    "copy_trust": {*_OF_ENGINES, "corpus_", "split"},
    "length_bias": {*_OF_ENGINES, "corpus_", "split", "cases"},
}
"""What is measured in place of all else, and the other options that are read for it."""

_EXAMPLES = 12
_MINUTE = 60.0

_Item = TypeVar("_Item")


@click.command()
@click.option("--model", default="", help="Checkpoint directory; default: the model that comes with the package.")
@click.option("--adapter", default="", help="Directory of an adapter for the model, as `dg-engine finetune` makes it.")
@click.option("--corpus", "corpus_", type=click.Path(path_type=Path), default=Path(".work/corpus"), show_default=True)
@click.option(
    "--split",
    type=click.Choice(["validation", "held_out"]),
    help="Default: held_out, and validation for --copy-trust and --length-bias, which fit to it.",
)
@click.option("--cases", type=click.IntRange(0), default=200, show_default=True, help="Of each kind of hole.")
@click.option(
    "--humaneval",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file of HumanEval-Infilling; its programs are run in a sandbox. May be given several times.",
)
@click.option("--humaneval-cases", type=click.IntRange(1), default=500, show_default=True, help="Of each such file.")
@click.option("--systems", default="", help="Names, separated by commas; the first is compared with the others.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Answers to each case.")
@click.option("--ladder", is_flag=True, help="Also 1, 2, 4, 8 and 12 steps of diffusion.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Default: the checkpoint directory, or the adapter's.",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    default=Path(".work/evaluation.jsonl"),
    show_default=True,
    help="What was measured; it is not measured again.",
)
@click.option("--device", help="cpu, cuda; default: a GPU if there is one.")
@click.option("--threads", type=THREADS, default=1, show_default=True)
@dtype_option
@click.option("--gate", is_flag=True, help="Only check the few cases that must not become worse.")
@click.option("--update", is_flag=True, help="With --gate: take what is measured now as what must not become worse.")
@click.option("--copy-trust", is_flag=True, help="Only find how far copied text is to be trusted, on the split.")
@click.option(
    "--length-bias",
    is_flag=True,
    help="Only find how sure a model that tries lengths is of each, whatever stands there, at the cases of the split.",
)
@click.pass_context
def evaluate(
    context: click.Context,
    model: str,
    adapter: str,
    corpus_: Path,
    split: Split | None,
    cases: int,
    humaneval: tuple[Path, ...],
    humaneval_cases: int,
    systems: str,
    seeds: int,
    output: Path | None,
    ledger: Path,
    device: str | None,
    threads: int,
    dtype: str | None,
    *,
    ladder: bool,
    gate: bool,
    update: bool,
    copy_trust: bool,
    length_bias: bool,
) -> None:
    """Fill holes in projects that were not trained on, in every way; write a report in Markdown and JSON, and plots.

    Killed at any moment, the same command continues.
    """
    if update and not gate:
        raise click.UsageError("--update belongs to --gate")
    if update and (model or adapter):
        raise click.UsageError("the gate is of the model that ships: --update takes no other")
    _refuse_strangers(context)
    split = split or ("validation" if copy_trust or length_bias else "held_out")

    def load() -> Engine:
        return load_engine(model, adapter, device=device, threads=threads, dtype=dtype)

    if gate:
        _gate(load(), update=update)
        return
    if copy_trust:
        engine = load()
        trust = fit_trust(runs(engine, _documents(corpus_, split)))
        click.echo(f'"copy_trust": {msgspec.json.encode(trust).decode()}')
        return
    if length_bias:
        engine = load()
        click.echo(f'"length_probe": {msgspec.json.encode(_probe(engine, _cases(corpus_, split, cases))).decode()}')
        return
    config = read_infill_config(hub.resolve(model))
    selected = chosen(systems.split(",") if systems else [], config, ladder=ladder)
    wanted = _cases(corpus_, split, cases) if cases else []
    wanted += [case for file in humaneval for case in read_tasks(file, humaneval_cases)]
    wanted = list({case.name: case for case in wanted}.values())
    if not wanted:
        raise click.UsageError("there is nothing to measure: --cases is 0 and there is no --humaneval")
    engine = load()
    try:
        with Ledger(ledger, run_name(engine)) as kept:
            measured = run(engine, wanted, selected, seeds=seeds, known=kept.known)
            outcomes = [kept.add(outcome) for outcome in _watched(measured, count(wanted, selected, seeds), "answers")]
    except KeyboardInterrupt as interrupt:
        raise click.ClickException(
            f"stopped; what was measured is in {ledger}, the same command continues"
        ) from interrupt
    command = _command(split, cases, selected, seeds, [file.name for file in humaneval], humaneval_cases)
    told = {"device": device, "threads": threads if threads > 1 else None, "dtype": dtype}
    command += "".join(f" --{name} {value}" for name, value in told.items() if value)
    found = _findings(engine, outcomes, selected, split, seeds, command)
    click.echo(_write(found, selected, outcomes, output or engine.adapter or engine.directory))


def _refuse_strangers(context: click.Context) -> None:
    """An option that would not be read."""
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    for alone, read in _READ.items():
        if alone in given and (strangers := given - read - {alone}):
            first, last = (name.rstrip("_").replace("_", "-") for name in (min(strangers), alone))
            raise click.UsageError(f"--{first} is not for --{last}")


def _probe(engine: Engine, cases: Sequence[Case]) -> LengthProbe:
    """The checkpoint's, with the bias that is found at some places."""
    probe = engine.config.length_probe or LengthProbe()
    places = _watched(cases, len(cases), "places")
    return msgspec.structs.replace(probe, bias=fit_bias(mean_sureness(engine, places, probe)))


def _documents(corpus: Path, split: Split) -> list[Document]:
    try:
        return list(documents(corpus, split))
    except OSError as error:
        raise EngineError(f"{corpus}: is no whole corpus ({error}); run `dg-engine corpus build` again") from error


def _cases(corpus: Path, split: Split, per_kind: int) -> list[Case]:
    """Holes in a split of a corpus."""
    drawn = draw_cases(_documents(corpus, split), per_kind)
    if per_kind and not drawn:
        raise EngineError(f"{corpus}: the split {split} has no files to cut holes in")
    return drawn


def _watched(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """The same, with a progress bar on a terminal, or with a line a minute anywhere else."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluate", total=total)
        said = time.monotonic()
        for number, item in enumerate(items, 1):
            bar.advance(task)
            if not console.is_terminal and time.monotonic() - said >= _MINUTE:
                said = time.monotonic()
                sys.stderr.write(f"{number:,} of {total:,} {what}\n")
                sys.stderr.flush()
            yield item


def _command(
    split: Split, cases: int, systems: tuple[System, ...], seeds: int, humaneval: list[str], humaneval_cases: int
) -> str:
    """What measures the same again, but for the paths of this machine."""
    words = ["dg-engine evaluate --split", split, "--cases", str(cases), "--seeds", str(seeds)]
    words += ["--systems", ",".join(one.name for one in systems)]
    if humaneval:
        words += ["--humaneval-cases", str(humaneval_cases), *(f"--humaneval {name}" for name in humaneval)]
    return " ".join(words)


def _findings(
    engine: Engine, outcomes: list[Outcome], systems: tuple[System, ...], split: Split, seeds: int, command: str
) -> Findings:
    calibrated = systems[0].name
    # What an editor asks for: a cursor's line, or a block of lines.
    scored = evidence([one for one in outcomes if one.key.system == calibrated and one.kind in CALIBRATED])
    # It says nothing on the split to which it was fitted, and the engine rates no other decoding by it.
    is_judged = split != "validation" and systems[0].decoding == engine.config.decoding
    known = engine.config.calibration if is_judged else None
    return Findings(
        # The directories' names alone: a published report is no place for somebody's paths.
        model=msgspec.structs.replace(
            engine.info, path=engine.directory.name, adapter=engine.adapter.name if engine.adapter else ""
        ),
        machine=machine(),
        command=command,
        split=split,
        seeds=seeds,
        groups=summarise(outcomes),
        calibrated=calibrated,
        calibration=known or fit(scored),
        is_the_checkpoints=known is not None,
        reliability=reliability(scored) if known is None else judged(scored, known),
        weights=weights_digest(*filter(None, (engine.directory, engine.adapter))),
    )


def _write(found: Findings, systems: tuple[System, ...], outcomes: list[Outcome], directory: Path) -> str:
    """Write report, figures and plots; returns the report."""
    directory.mkdir(parents=True, exist_ok=True)
    shown = [one for one in outcomes if one.key.system == systems[0].name and not one.key.seed]
    examples = shown[:: max(1, len(shown) // _EXAMPLES)][:_EXAMPLES]
    text = to_markdown(found, systems, examples, plot(found, directory))
    (directory / REPORT_FILE).write_text(text, encoding="utf-8")
    write_json(directory / FINDINGS_FILE, found)
    return text


def _gate(engine: Engine, *, update: bool) -> None:
    if update:
        click.echo(f"{gates.update(engine)} cases are in {gates.GATE_FILE}")
        return
    found = gates.check(engine)
    click.echo(
        f"edit similarity {100 * found.similarity:.1f} %, committed {100 * found.committed:.1f} +- "
        f"{100 * found.tolerance:.1f} %, {found.cases} cases, {found.skipped} not in this Python"
    )
