"""The model that ships: it opens in both libraries, is as large as its card says, and fills a hole sensibly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from dg_engine import checkpoint
from dg_engine.api import Infill, InfillRequest
from dg_engine.engine import Engine
from dg_engine.paths import shipped_model
from dg_engine.training.shapes import SHAPES

SHIPPED = SHAPES["base"].config


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(shipped_model())


def test_it_is_what_the_trainer_says(engine: Engine) -> None:
    assert engine.model.config == SHIPPED
    assert engine.config == msgspec.structs.replace(
        SHAPES["base"].infill(),
        decoding="causal_fit",
        block_decoding="causal_fit",
        filler_bias=engine.config.filler_bias,
        calibration=engine.config.calibration,
        copy_trust=engine.config.copy_trust,
    )
    assert f"{engine.info.parameters / 1e6:.1f} M" == "12.7 M"
    assert sum(path.stat().st_size for path in shipped_model().iterdir()) < 90_000_000


def test_it_fills_a_hole_in_code_it_has_not_seen(engine: Engine) -> None:
    source = Path(checkpoint.__file__).read_text(encoding="utf-8")
    hole = "-> DiffusionGemma:\n"
    before, after = source[: source.index(hole) + 3], source[source.index(hole) + len(hole) - 1 :]
    *_, answer = engine.infill(
        InfillRequest(prefix=before, suffix=after, path="dg_engine/checkpoint.py", extent="line")
    )
    assert isinstance(answer, Infill)
    assert answer.text.strip()
    assert "\n" not in answer.text
    assert answer.score is not None
    assert answer.score > -6


@pytest.mark.parametrize("others", [0, 2])
def test_it_has_other_answers_for_who_asks(engine: Engine, others: int) -> None:
    request = InfillRequest(
        prefix="def area(width, height):\n    siz", suffix="\n    return size\n", extent="line", others=others
    )
    *_, answer = engine.infill(request)
    assert isinstance(answer, Infill)
    texts = (answer.text, *answer.others)
    assert len(texts) == len(set(texts)) == 1 + others
    assert all(text.startswith("e") for text in texts), "each goes on with the word that was begun"


def test_it_opens_in_transformers() -> None:
    transformers = pytest.importorskip("transformers", minversion="5.23.0")
    theirs = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(shipped_model(), dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(shipped_model())
    tokens = torch.tensor([tokenizer.encode("def add(a, b):\n    return ", add_special_tokens=False)])
    canvas = torch.randint(0, SHIPPED.vocab_size, (1, 16), generator=torch.Generator().manual_seed(0))
    ours = checkpoint.load(shipped_model(), dtype=torch.float32)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=tokens, decoder_input_ids=canvas).logits
        found = ours.logits(ours.decode(canvas, ours.encode(tokens).cache, None))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_loading_and_answering_leave_the_compiler_alone() -> None:
    # Its import takes as long as all the rest of the engine's start.
    code = (
        "import sys; from dg_engine import paths; from dg_engine.engine import Engine; "
        "Engine.load(paths.shipped_model(), device='cpu').warm_up(); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
