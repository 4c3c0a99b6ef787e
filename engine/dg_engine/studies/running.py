"""A study's runs, each trained and measured by the commands that users have, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dg_engine.errors import EngineError
from dg_engine.studies import child
from dg_engine.studies.variants import Variant
from dg_engine.training.card import FINDINGS_FILE
from dg_engine.training.plan import read_plan
from dg_engine.training.run_state import read_metrics

SYSTEMS = ("diffusion", "diffusion-given", "causal-fit-alone")
"""What of a run is measured: its diffusion for unknown and for given length, and what would ship."""
_CHECKS = 6
"""Validations in a run from nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Runs that can be compared: on the same data, for the same processor time, on one thread each."""

    variants: Sequence[Variant]
    directory: Path
    corpus: Path
    minutes: float
    """Of processor time, for a run from nothing."""
    cases: int
    """Validation holes of every kind."""
    jobs: int
    """Runs at once."""
    mode: str = "compiled"
    """Of training."""

    def run(self, report: Callable[[str], None]) -> None:
        """Train and measure what is not there yet.

        Raises:
            EngineError: a process failed, or a run that is there had another time; names its log or its folder.
        """
        waves = [[one for one in self.variants if bool(one.start) == later] for later in (False, True)]
        with ThreadPoolExecutor(self.jobs) as pool:
            for wave in waves:
                running = [pool.submit(self._carry_out, variant, report) for variant in wave]
                try:
                    for one in running:
                        one.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def findings(self, variant: Variant) -> Path:
        """The `evaluation.json` of a run."""
        return self.directory / variant.name / "evaluation" / FINDINGS_FILE

    def _carry_out(self, variant: Variant, report: Callable[[str], None]) -> None:
        run = self.directory / variant.name
        run.mkdir(parents=True, exist_ok=True)
        if not self._is_trained(variant):
            report(f"{variant.name}: training for {self.minutes * variant.share:g} minutes of processor time")
            self._command("train", self._training(variant), run)
        # Always: what is in its ledger is not measured again, and another number of cases is told apart there.
        report(f"{variant.name}: measuring")
        self._command("evaluate", self._evaluation(variant), run)
        report(f"{variant.name}: done")

    def _is_trained(self, variant: Variant) -> bool:
        run, wanted = self.directory / variant.name, self.minutes * variant.share * 60
        plan = read_plan(run)
        if plan is not None and abs(plan.seconds - wanted) > 0.01:
            raise EngineError(f"{run}: was begun with another number of minutes; name another --directory")
        lines = read_metrics(run)
        return bool(lines) and "validation" in lines[-1] and lines[-1]["elapsed"] >= wanted

    def _training(self, variant: Variant) -> list[str]:
        words = ["--corpus", str(self.corpus), "--run", str(self.directory / variant.name), "--shape", variant.shape]
        words += ["--minutes", repr(self.minutes * variant.share), "--clock", "processor", "--threads", "1"]
        words += ["--chunks", "4", "--accumulate", "1", "--mode", self.mode]
        every = f"validate_every={self.minutes * 60 / _CHECKS!r}"
        for setting in (every, *variant.settings):
            words += ["--set", setting]
        return [*words, "--init", str(self.directory / variant.start / "model")] if variant.start else words

    def _evaluation(self, variant: Variant) -> list[str]:
        run = self.directory / variant.name
        words = ["--model", str(run / "model"), "--corpus", str(self.corpus), "--split", "validation"]
        words += ["--cases", str(self.cases), "--systems", ",".join(SYSTEMS)]
        return [*words, "--ledger", str(run / "evaluation.jsonl"), "--output", str(self.findings(variant).parent)]

    def _command(self, name: str, words: list[str], run: Path) -> None:
        compiled = self.directory / "compiled"  # shared: runs of one shape need the same code
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(compiled.absolute()), "OMP_NUM_THREADS": "1"} | os.environ
        log = run / f"{name}.log"
        with log.open("w", encoding="utf-8") as file:
            status = _status([sys.executable, "-m", child.__name__, name, *words], environment, file)
        if status:
            raise EngineError(f"dg-engine {name} failed with status {status}: see {log}; the same command goes on")


def _status(words: list[str], environment: dict[str, str], log: IO[str]) -> int:
    # The pipe is what the child watches: it closes when this process ends, however it does.
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
        return process.wait()
