"""What the server tells the engine of text that the user wrote before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dg_engine.api import Copy, Draft, Infill, InfillRequest
from dg_engine.errors import EngineUnavailable
from dg_engine.exclusion import IGNORE_FILE, Exclusions
from dg_lsp import neighbours
from dg_lsp.backends import Report
from dg_lsp.document import Document, Position
from dg_lsp.planning import PlanningOptions
from dg_lsp.session import Ask
from dg_lsp.workspace import Workspace

LINE = "    audit_trail = AuditTrail(bearing_samples)\n"
TYPED = "    audit_trail = "
WRITTEN = "AuditTrail(bearing_samples)\n"
COPY = Copy(text=WRITTEN, matched=len("audit_trail="), elsewhere=True)


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
        await self.workspace.configure(None)
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
    assert copy.matched >= COPY.matched
    assert not copy.elsewhere


@pytest.mark.asyncio
async def test_other_open_documents_of_the_language_are_looked_through(desk: Desk) -> None:
    here = desk.open("here.py", "import os\n\n" + TYPED)
    assert await desk.copied(here, 2, len(TYPED)) is None
    desk.open("notes.txt", LINE, language="plaintext")
    assert await desk.copied(here, 2, len(TYPED)) is None
    desk.open("there.py", LINE)
    assert await desk.copied(here, 2, len(TYPED)) == COPY


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


async def read_by_now() -> None:
    """What was begun to be read is read."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


@pytest.mark.asyncio
async def test_files_beside_the_document_are_copied_from(desk: Desk) -> None:
    (desk.folder / "there.py").write_text(LINE.replace("\n", "\r\n"), newline="")
    (desk.folder / "there.txt").write_text(LINE.replace("Audit", "Other"))
    here = desk.open("here.py", "import os\n\n" + TYPED)
    assert await desk.copied(here, 2, len(TYPED)) is None
    await read_by_now()
    assert await desk.copied(here, 2, len(TYPED)) == COPY


@pytest.mark.asyncio
async def test_of_a_file_that_is_open_the_buffer_counts(desk: Desk) -> None:
    here = desk.open("here.py", "import os\n\n" + TYPED)
    desk.open("there.py", LINE)
    (desk.folder / "there.py").write_text(LINE + LINE.replace("Audit", "Older"))
    await desk.copied(here, 2, len(TYPED))
    await read_by_now()
    assert await desk.copied(here, 2, len(TYPED)) == COPY


@pytest.mark.asyncio
async def test_excluded_files_are_not_read_and_no_longer_used_where_the_rules_change(desk: Desk) -> None:
    (desk.folder / "secrets.py").write_text(LINE)
    (desk.folder / "there.py").write_text(LINE)
    here = desk.open("here.py", "import os\n\n" + TYPED)
    await desk.copied(here, 2, len(TYPED))
    await read_by_now()
    assert await desk.copied(here, 2, len(TYPED)) is not None
    await desk.workspace.configure({"exclude": ["there.py"]})
    for _ in range(2):
        assert await desk.copied(here, 2, len(TYPED)) is None
        await read_by_now()


@pytest.mark.asyncio
async def test_a_file_that_is_excluded_after_it_was_read_is_used_no_longer(desk: Desk) -> None:
    (desk.folder / "there.py").write_text(LINE)
    here = desk.open("here.py", "import os\n\n" + TYPED)
    await desk.copied(here, 2, len(TYPED))
    await read_by_now()
    assert await desk.copied(here, 2, len(TYPED)) is not None
    (desk.folder / IGNORE_FILE).write_text("there.py\n")
    for _ in range(2):
        assert await desk.copied(here, 2, len(TYPED)) is None
        await read_by_now()


@pytest.mark.asyncio
async def test_files_are_read_anew_when_they_were_read_some_time_ago(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = desk.open("here.py", "import os\n\n" + TYPED)
    await desk.copied(here, 2, len(TYPED))
    await read_by_now()
    (desk.folder / "there.py").write_text(LINE)
    for fresh, expected in ((3600.0, None), (0.0, COPY)):
        monkeypatch.setattr(neighbours, "FRESH_S", fresh)
        await desk.copied(here, 2, len(TYPED))
        await read_by_now()
        assert await desk.copied(here, 2, len(TYPED)) == expected
        await read_by_now()


def written(root: Path, *names: str) -> None:
    """Files one second apart, the last one written last."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
        os.utime(root / name, (number, number))


def names(root: Path, document: str, folders: list[Path]) -> list[str]:
    found = neighbours.read(root / document, folders, Exclusions(folders))
    return [one.path.relative_to(root).as_posix() for one in found]


def test_the_nearest_files_come_first_and_none_from_outside_the_workspace(tmp_path: Path) -> None:
    written(tmp_path, "out.py", "w/top.py", "w/a/old.py", "w/a/new.py", "w/a/here.py", "w/a/b/in.py", "w/c/beside.py")
    written(tmp_path, "w/a/.hidden/x.py", "w/a/node_modules/x.py", "w/venv/x.py", "w/a/notes.md")
    near = ["w/a/new.py", "w/a/old.py", "w/a/b/in.py"]
    assert names(tmp_path, "w/a/here.py", [tmp_path / "w"]) == [*near, "w/top.py", "w/c/beside.py"]
    assert names(tmp_path, "w/a/here.py", []) == near
    assert names(tmp_path, "w/a/Makefile", []) == []


def test_links_that_lead_in_a_circle_are_passed_over(tmp_path: Path) -> None:
    written(tmp_path, "there.py")
    (tmp_path / "circle.py").symlink_to(tmp_path / "circle.py")
    assert names(tmp_path, "here.py", []) == ["there.py"]


def test_how_much_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, *(f"{number}.py" for number in range(9)))
    monkeypatch.setattr(neighbours, "FILES", 3)
    assert names(tmp_path, "here.py", []) == ["8.py", "7.py", "6.py"]
    monkeypatch.setattr(neighbours, "ALTOGETHER", 10)
    texts = [one.text for one in neighbours.read(tmp_path / "here.py", [], Exclusions())]
    assert texts == ["# 8.py\n", "# 7"]
    monkeypatch.setattr(neighbours, "ENTRIES", 4)
    assert len(names(tmp_path, "here.py", [])) <= 4
