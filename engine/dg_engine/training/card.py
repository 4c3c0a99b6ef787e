"""The model card: what the model is, what it learnt from, how, at what cost, and what came of it, good or bad."""

from __future__ import annotations

import json
import platform
import textwrap
from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import msgspec

from dg_engine.config import read_config
from dg_engine.errors import MALFORMED
from dg_engine.settings import read_infill_config
from dg_engine.training.corpus import Manifest, ProjectRecord, read_manifest, write_json
from dg_engine.training.plan import PLAN_FILE
from dg_engine.training.run_state import read_metrics

REPORT_FILE = "evaluation.md"
"""Written beside the card by `dg-engine evaluate`, and quoted in it where it is of the same weights."""
FINDINGS_FILE = "evaluation.json"
"""The same for programs; its `weights` are the `weights_digest` of what was measured."""

STUDY_FILE = "study-{}.md"
"""Written beside the card by `dg-engine study`, and quoted in it."""

_EARLIER_FILE = "earlier.md"
"""In a run's folder: how the weights were trained that it began with."""
_RECIPE = "## Recipe and compute"

# JSON is YAML, and needs no library to be written.
_FRONT_MATTER: dict[str, Any] = {
    "language": ["code"],
    "license": "apache-2.0",
    "library_name": "transformers",
    "pipeline_tag": "text-generation",
    "tags": ["diffusion_gemma", "code", "infill", "fill-in-the-middle", "text-diffusion"],
}


def write_card(model: Path, corpus: Path, run: Path) -> None:
    """Write `README.md` into a checkpoint directory, from its config, the corpus's manifest and the run's metrics.

    Raises:
        EngineError: a manifest or a config is missing or malformed.
    """
    manifest = read_manifest(corpus)
    lines = read_metrics(run)
    shares = manifest.settings["shares"]
    languages = list(shares) if isinstance(shares, dict) else []
    sections = [
        _front_matter(languages),
        _what(model, languages),
        _data(manifest, languages),
        _recipe(run, lines),
        _results(model, lines),
        _limits(model, manifest, languages),
        _sources(manifest),
    ]
    (model / "README.md").write_text("\n".join(sections), encoding="utf-8")


def weights_digest(*directories: Path) -> str:
    """A digest of the weights in a checkpoint's folder, or in that and its adapter's."""
    digest = sha256()
    for path in (path for directory in directories for path in sorted(directory.glob("*.safetensors"))):
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return digest.hexdigest()


def keep_measured(model: Path) -> None:
    """Before a checkpoint's weights are replaced: have its evaluation say that it is of those, if it does not tell.

    Evaluations did not, once; they are of the weights beside which they lie.
    """
    findings = _findings(model)
    if findings and not findings.get("weights"):
        write_json(model / FINDINGS_FILE, findings | {"weights": weights_digest(model)})


def keep_recipe(start: Path, run: Path) -> None:
    """Remember in a run's folder how the checkpoint came about with whose weights it begins, as its card tells."""
    card = start / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    told = text.partition(_RECIPE)[2].partition("The whole plan")[0].strip()
    (run / _EARLIER_FILE).write_text(told or f"It is called {start.name}, and has no card that tells how.", "utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers are set to the right."""
    rule = ["---:" if rows and isinstance(cell, int | float) else "---" for cell in (rows[0] if rows else header)]
    body = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(header) + " |", "| " + " | ".join(rule) + " |", *body])


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 118 characters."""
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def _front_matter(languages: Sequence[str]) -> str:
    known = _FRONT_MATTER | {"tags": [*_FRONT_MATTER["tags"], *languages]}
    lines = [f"{key}: {json.dumps(value)}" for key, value in known.items()]
    return "\n".join(["---", *lines, "---", ""])


def _named(languages: Sequence[str]) -> str:
    """`Python, Go and Rust`."""
    *first, last = (language.capitalize() for language in languages or ["text"])
    return f"{', '.join(first)} and {last}" if first else last


def _what(model: Path, languages: Sequence[str]) -> str:
    config, infill = read_config(model), read_infill_config(model)
    experts = f"{config.num_experts} expert{'s' if config.num_experts > 1 else ''} of {config.moe_intermediate_size}"
    if config.num_experts > config.top_k_experts:
        experts += f", {config.top_k_experts} of which are used for a token"
    kinds = ", ".join(kind.removesuffix("_attention") for kind in config.layer_types)
    text = f"""
A text-diffusion model for infill of {_named(languages)}: the `diffusion_gemma` text architecture. It has
{config.num_hidden_layers} layers ({kinds}; window {config.sliding_window}), width {config.hidden_size},
{config.num_attention_heads} query and {config.num_key_value_heads} key heads, a dense MLP of
{config.intermediate_size} beside {experts}, and a byte-level BPE of {config.vocab_size:,} tokens. A causal encoder
reads up to {infill.max_prefix_tokens:,} tokens before the cursor; a bidirectional decoder fills a hole of unknown
length in front of the {infill.suffix_tokens} pinned tokens that follow the cursor. Unused slots of a hole are filled
with `<eos>`. The encoder with the tied head is a causal language model over the same weights.
"""
    return f"# {infill.name}\n\n{wrapped(text)}\n"


def _data(manifest: Manifest, languages: Sequence[str]) -> str:
    def row(split: str, records: list[ProjectRecord]) -> list[object]:
        numbers = [sum(getattr(one, name) for one in records) for name in ("files", "bytes", "tokens")]
        return [split, len(records), *numbers]

    rows = [row(split, manifest.of(split)) for split in ("train", "validation", "held_out")]
    dropped: dict[str, int] = {}
    for record in manifest.projects:
        for reason, count in record.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items(), key=lambda one: -one[1]))
    left_out = "; ".join(f"{one.name} ({one.reason})" for one in manifest.refused) or "none"
    benchmarks = manifest.settings["benchmarks"]
    searched = ", ".join(benchmarks) if isinstance(benchmarks, list) else ""
    about = f"""
Files of {_named(languages)} from the projects listed below, under permissive licences that were read from each one's
own metadata or licence file. Split by project: nothing of a held-out project was trained on, and a file that resembles
one of them (MinHash over 5-grams) was dropped from training.
"""
    return f"""## Data

{wrapped(about)}

{table(["split", "projects", "files", "bytes", "tokens"], rows)}

{wrapped(f"Files left out: {reasons}.")}

{wrapped(f"Projects left out: {left_out}.")}

Benchmark files whose solutions were searched for in the training split (windows of 10 words): {searched or "none"}.
"""


def _recipe(run: Path, lines: list[dict[str, Any]]) -> str:
    plan = json.loads((run / PLAN_FILE).read_text(encoding="utf-8"))
    steps = [line for line in lines if "loss" in line]
    minutes = steps[-1]["elapsed"] / 60 if steps else 0.0
    earlier = run / _EARLIER_FILE
    before = ""
    if earlier.exists():
        told = textwrap.indent(earlier.read_text(encoding="utf-8"), "> ", lambda line: True)
        before = f"The weights were trained before. Of that run its card said:\n\n{told}\n\nThen they learnt anew:\n\n"
    return f"""{_RECIPE}

{before}{minutes:.0f} minutes of training on {_processor()}, {len(steps):,} updates of a plan of
{plan["seconds"] / 60:.0f} minutes. Muon on hidden matrices, AdamW on the rest, warm-down to zero, averaged weights.
{_stages(plan["schedule"])}

Uniform noise over the vocabulary, self-conditioning in half of the steps, pinned slots conditioned on their own
embedding. The whole plan (of the last part, if the run was resumed with another length):

```json
{json.dumps(plan, indent=1)}
```

![loss](loss.png)
"""


def _stages(schedule: dict[str, Any]) -> str:
    """What was learnt one after the other; `schedule` is a `Schedule`'s fields."""
    causal_until, joint_until = schedule["causal_until"], schedule["joint_until"]
    stages = [
        (causal_until > 0, "causal language modelling"),
        (joint_until > causal_until, "causal and denoising losses together, several canvases over one encoder pass"),
        (joint_until < 1, "a finish at the sampler's noise levels"),
    ]
    return wrapped(f"In turn: {'; '.join(stage for was, stage in stages if was)}.")


def _results(model: Path, lines: list[dict[str, Any]]) -> str:
    checks = [line for line in lines if "validation" in line]
    text = "## Results\n\n"
    if checks:
        last = checks[-1]
        rows = [[key.replace("_", " at t = "), value] for key, value in sorted(last["validation"].items())]
        text += f"Validation projects after {last['elapsed'] / 60:.0f} minutes, nats per token:\n\n"
        text += table(["loss", "value"], rows) + "\n"
    reports = [*model.glob(REPORT_FILE), *sorted(model.glob(STUDY_FILE.format("*")))]
    if _findings(model).get("weights", "") not in {"", weights_digest(model)}:
        text += "\nThe evaluation that lies beside this card is of other weights: run `dg-engine evaluate` again.\n"
        reports = [report for report in reports if report.name != REPORT_FILE]
    return text + "".join("\n" + report.read_text(encoding="utf-8").replace("# ", "### ", 1) for report in reports)


def _findings(model: Path) -> dict[str, Any]:
    """What `evaluation.json` says; nothing where there is none."""
    try:
        return msgspec.json.decode((model / FINDINGS_FILE).read_bytes(), type=dict[str, Any])
    except (OSError, *MALFORMED):
        return {}


def _limits(model: Path, manifest: Manifest, languages: Sequence[str]) -> str:
    tokens = sum(one.tokens for one in manifest.of("train"))
    text = f"""
All that it could learn from are {tokens / 1e6:,.0f} million tokens of {_named(languages)}: it writes plausible short
pieces, often not the right ones, and knows no other language. Read what it offers before accepting it. What it does
badly is in the tables above: of several lines it mostly offers the first, and its probabilities are some points off.
"""
    if read_infill_config(model).decoding == "causal_fit":
        text += """
Its diffusion is weaker than its causal side. So what it offers is written from left to right and fitted to the suffix
(`causal_fit`), unless diffusion is asked for.
"""
    return f"## Limits\n\n{wrapped(text)}\n"


def _sources(manifest: Manifest) -> str:
    rows = [[one.name, one.version, one.licence, one.split, one.files, one.tokens] for one in manifest.projects]
    return f"## Sources\n\n{table(['project', 'version', 'licence', 'split', 'files', 'tokens'], rows)}\n"


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
