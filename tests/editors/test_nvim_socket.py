"""The client of Neovim's API, where no Neovim answers."""

from __future__ import annotations

import gc
import socket
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from nvim_socket import NeovimSocket


def test_a_socket_where_nobody_listens_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may be no longer than 107 bytes
    with socket.socket(socket.AF_UNIX) as bound, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        bound.bind("nvim.sock")
        with suppress(ConnectionRefusedError):
            NeovimSocket(Path("nvim.sock"))
            pytest.fail("nobody listens there")
        gc.collect()
    assert not told
