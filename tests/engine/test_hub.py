"""Models by their names on the hub: nothing is fetched unasked, and then only data of the commit that was named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from dg_engine import checkpoint, hub, paths
from dg_engine.cli import main
from dg_engine.errors import CheckpointError
from dg_engine.testing import tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@dataclass
class Hub:
    """A hub with one repository, on loopback."""

    files: dict[str, bytes]
    asked: set[str] = field(default_factory=set)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.asked.add(path)
                if path == f"/api/models/owner/model/tree/{COMMIT}":
                    listed = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in hub.files.items()]
                    self.send(200, json.dumps(listed).encode(), with_body=with_body)
                elif path.startswith(f"/owner/model/resolve/{COMMIT}/"):
                    self.send(200, hub.files[path.rpartition("/")[2]], with_body=with_body)
                else:
                    self.send(404, b"{}", with_body=with_body)

            def send(self, status: int, body: bytes, *, with_body: bool) -> None:
                self.send_response(status)
                self.send_header("ETag", f'"{abs(hash(body)):x}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    return tmp_path / "cache"


@pytest.fixture
def served(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    checkpoint.save(tiny_model(), tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    hub = Hub(files | {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub.handler())
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + template)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def snapshot(cache: Path, commit: str) -> Path:
    directory = cache / "models--owner--model" / "snapshots" / commit
    directory.mkdir(parents=True)
    return directory


def test_a_download_takes_data_alone_and_is_found_from_then_on(served: Hub) -> None:
    result = CliRunner().invoke(main, ["download", f"owner/model@{COMMIT}"])
    assert result.exit_code == 0, result.output
    directory = hub.resolve("owner/model")
    assert str(directory) in result.output.replace("\n", "")
    assert {path.name for path in directory.iterdir()} == {"config.json", "model.safetensors"}
    files = [f"/owner/model/resolve/{COMMIT}/{name}" for name in ("config.json", "model.safetensors")]
    assert served.asked == {f"/api/models/owner/model/tree/{COMMIT}", *files}, "nothing is asked or told beside"
    checkpoint.load(directory)
    assert hub.resolve(f"owner/model@{COMMIT}") == directory


def test_the_command_needs_nothing_that_a_test_has_imported() -> None:
    command = [sys.executable, "-m", "dg_engine", "download", f"owner/model@{COMMIT}"]
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "cannot be fetched from the hub" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_hub_does_not_have_is_said_in_one_line(served: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"owner/absent@0123\w+: cannot be fetched from the hub") as caught:
        hub.download(f"owner/absent@{COMMIT}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/model", "model", "owner/model@main", "owner/model@0123"])
def test_a_download_must_name_the_commit(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="40"):
        hub.download(name)


def test_resolving_never_asks_the_hub(served: Hub) -> None:
    with pytest.raises(CheckpointError, match=rf"try: dg-engine download owner/model@{COMMIT}"):
        hub.resolve(f"owner/model@{COMMIT}")
    assert not served.asked


def test_one_commit_in_the_cache_is_taken_and_several_are_asked_about(cache: Path) -> None:
    first = snapshot(cache, COMMIT)
    assert hub.resolve("owner/model") == first
    second = snapshot(cache, OTHER)
    with pytest.raises(CheckpointError, match=f"at {COMMIT}, {OTHER}; add @ and one of them"):
        hub.resolve("owner/model")
    assert hub.resolve(f"owner/model@{OTHER}") == second


def test_directories_come_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("owner/model") == Path("owner/model")
    assert hub.resolve("/no/such/directory") == Path("/no/such/directory")
    assert hub.resolve("") == paths.shipped_model()
