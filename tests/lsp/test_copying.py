"""What the server tells the engine of text that the user wrote before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dg_engine.api import Copy, Draft, Infill, InfillRequest
from dg_engine.errors import EngineUnavailable
from dg_lsp.backends import Report
from dg_lsp.document import Document, Position
from dg_lsp.planning import PlanningOptions
from dg_lsp.session import Ask
from dg_lsp.workspace import Workspace

LINE = "    audit_trail = AuditTrail(bearing_samples)\n"
TYPED = "    audit_trail = "
WRITTEN = "AuditTrail(bearing_samples)\n"


class Listener:
    """A backend that has no answers."""

    def __init__(self) -> None:
        self.requests: list[InfillRequest] = []

    async def infill(self, request: InfillRequest) -> AsyncGenerator[Draft | Infill, None]:
        self.requests.append(request)
        raise EngineUnavailable("no card")
        yield  # a generator, though it never yields

    async def start(self, report: Report) -> None: ...

    async def restart(self) -> None: ...

    async def close(self) -> None: ...


class Desk:
    """A workspace, and what its engine is asked."""

    def __init__(self, folder: Path) -> None:
        self.engine = Listener()
        self.workspace = Workspace(lambda _: self.engine, lambda _: None)
        self.workspace.set_folders([folder])
        self.folder = folder

    def open(self, name: str, text: str, language: str = "python") -> str:
        path = self.folder / name
        path.write_text(text)
        self.workspace.open(Document(path.as_uri(), language, 1, text, "utf-16"), path)
        return path.as_uri()

    async def copied(self, uri: str, row: int, column: int) -> Copy | None:
        await self.workspace.complete(uri, Ask(Position(row, column), automatic=False))
        return self.engine.requests[-1].copied


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.asyncio
@pytest.mark.parametrize("above", [True, False])
async def test_what_stands_far_above_or_below_the_cursor_is_told(desk: Desk, *, above: bool) -> None:
    far = "".join(f"value_{number} = {number}\n" for number in range(1000))
    assert len(far) > 4 * PlanningOptions().max_prefix_characters
    head = LINE + far if above else far
    uri = desk.open("here.py", head + TYPED + ("" if above else "\n" + far + LINE))
    copy = await desk.copied(uri, head.count("\n"), len(TYPED))
    assert copy is not None
    assert copy.text.startswith(WRITTEN)
    assert copy.matched >= len(TYPED)


@pytest.mark.asyncio
async def test_other_open_documents_of_the_language_are_looked_through(desk: Desk) -> None:
    here = desk.open("here.py", "import os\n\n" + TYPED)
    assert await desk.copied(here, 2, len(TYPED)) is None
    desk.open("notes.txt", LINE, language="plaintext")
    assert await desk.copied(here, 2, len(TYPED)) is None
    desk.open("there.py", LINE)
    assert await desk.copied(here, 2, len(TYPED)) == Copy(text=WRITTEN, matched=len(TYPED))


@pytest.mark.asyncio
async def test_an_excluded_document_is_not_copied_from(desk: Desk) -> None:
    (desk.folder / ".dglspignore").write_text("private_*\n")
    here = desk.open("here.py", "import os\n\n" + TYPED)
    desk.open("private_plan.py", LINE)
    desk.open("secrets.py", "x = 1\n")
    assert await desk.copied(here, 2, len(TYPED)) is None


@pytest.mark.asyncio
async def test_ends_of_lines_are_copied_as_the_engine_knows_them(desk: Desk) -> None:
    crlf = desk.open("crlf.py", (LINE + "x = 1\n" + TYPED).replace("\n", "\r\n"))
    copy = await desk.copied(crlf, 2, len(TYPED))
    assert copy is not None
    assert copy.text.startswith(WRITTEN)
    assert "\r" not in copy.text
