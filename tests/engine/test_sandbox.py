"""The sandbox lets sound programs pass and nothing out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dg_engine.evaluation.sandbox import Limits, run

QUICK = Limits(wall_s=3, cpu_s=1)


def test_a_sound_program_passes_and_a_wrong_one_fails() -> None:
    assert run("import math\nassert math.gcd(4, 6) == 2\nprint('said')") == "passed"
    assert run("assert 1 + 1 == 3") == "failed"
    assert run("def f(:") == "failed"


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_leaving_early_is_not_passing(leave: str) -> None:
    assert run(leave) == "failed"


def test_an_endless_loop_is_ended_by_its_cpu_time_and_an_idle_one_by_the_clock() -> None:
    assert run("while True: pass", QUICK) in {"failed", "timeout"}
    assert run("import time; time.sleep(60)", Limits(wall_s=0.5)) == "timeout"


def test_memory_is_bounded() -> None:
    assert run("x = bytearray(8 << 30)", QUICK) == "failed"


def test_there_is_no_network_and_no_other_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)") == "failed"
    assert run("import subprocess; subprocess.run(['true'])") == "failed"
    assert run("import os; os.fork()") == "failed"
    assert run(f"import os; os.kill({os.getpid()}, 0)") == "failed"


def test_what_is_written_lies_in_a_directory_that_goes_away(tmp_path: Path) -> None:
    assert run("open('a.txt', 'w').write('x'); assert open('a.txt').read() == 'x'") == "passed"
    assert not Path("a.txt").exists()
    assert run("open('big', 'wb').write(bytes(8 << 20))", QUICK) == "failed"


def test_the_program_sees_nothing_of_ours() -> None:
    assert run("import os; assert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, dict(os.environ)") == "passed"
    assert run("import dg_engine") == "failed"
