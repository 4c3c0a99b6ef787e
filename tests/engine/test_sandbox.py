"""The sandbox lets sound programs pass and nothing out; each of its walls stands alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dg_engine.evaluation import sandboxed
from dg_engine.evaluation.sandbox import Limits, run

QUICK = Limits(wall_s=10, cpu_s=1)


def test_a_sound_program_passes_and_a_wrong_one_fails() -> None:
    assert run("import math\nassert math.gcd(4, 6) == 2\nprint('said')") == "passed"
    assert run("assert 1 + 1 == 3") == "failed"
    assert run("def f(:") == "failed"


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_leaving_early_is_not_passing(leave: str) -> None:
    assert run(leave) == "failed"


def test_an_endless_loop_is_ended_by_its_cpu_time_and_an_idle_one_by_the_clock() -> None:
    assert run("while True: pass", QUICK) == "failed"
    assert run("import time; time.sleep(60)", Limits(wall_s=0.5)) == "timeout"


def test_cpu_time_ends_a_program_that_ignores_the_warning() -> None:
    assert run("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", QUICK) == "failed"


def test_memory_is_bounded() -> None:
    assert run("x = bytearray(8 << 30)", QUICK) == "failed"
    assert run("x = []\nwhile True: x.append(bytearray(1 << 26))", QUICK) == "failed"
    assert run("x = bytearray(1 << 26)", QUICK) == "passed"


def test_no_limit_can_be_raised_again() -> None:
    for limit in ("CPU", "AS", "FSIZE"):
        raised = f"import resource; resource.setrlimit(resource.RLIMIT_{limit}, (-1, -1)); "
        assert run(f"{raised}x = bytearray(2 << 30)") == "failed"


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)") == "failed"


STARTS = {
    "subprocess": "import subprocess; subprocess.run(['/bin/touch', 'made'])",
    "fork": "import os; os.fork()",
    "spawn": "import os; os.posix_spawn('/bin/touch', ['touch', 'made'], {})",
    "exec": "import os; os.execv('/bin/touch', ['touch', 'made'])",
    "multiprocessing": "import multiprocessing as m; p = m.get_context('spawn').Process(target=print); p.start()",
    "underneath": "import _posixsubprocess; _posixsubprocess.fork_exec()",
    "kill": f"import os; os.kill({os.getpid()}, 0)",
}


@pytest.mark.parametrize("program", STARTS.values(), ids=STARTS)
def test_there_is_no_other_process(program: str) -> None:
    assert run(f"try:\n    {program}\nexcept PermissionError: pass\nelse: raise SystemExit") == "passed"


def test_what_is_written_lies_in_a_directory_that_goes_away() -> None:
    assert run("open('a.txt', 'w').write('x'); assert open('a.txt').read() == 'x'") == "passed"
    assert run("import tempfile; tempfile.TemporaryFile().write(b'x')") == "passed"
    assert not Path("a.txt").exists()


def test_little_is_written() -> None:
    assert run("open('big', 'wb').write(bytes(8 << 20))", QUICK) == "failed"
    assert run("for i in range(1000): open(str(i), 'wb').write(bytes(1 << 10))", QUICK) == "failed"


CHANGES = {
    "write": "open({path!r}, 'w')",
    "append": "open({path!r}, 'ab')",
    "open": "import os; os.open({path!r}, os.O_WRONLY)",
    "remove": "import os; os.remove({path!r})",
    "move": "import os; os.rename({path!r}, 'here')",
    "truncate": "import os; os.truncate({path!r}, 0)",
    "mode": "import os; os.chmod({path!r}, 0)",
    "clear": "import shutil; shutil.rmtree({path!r} + '/..')",
    "link": "import os; os.symlink({path!r}, 'here'); open('here', 'w')",
    "leave": "import os; os.chdir({path!r} + '/..'); open('precious.txt', 'w')",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_else_can_be_changed(tmp_path: Path, change: str) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    mode = precious.stat().st_mode
    assert run(change.format(path=str(precious))) == "failed"
    assert precious.read_text() == "kept"
    assert precious.stat().st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def alone(wall: str, program: str, directory: Path) -> int:
    """The exit status of a program behind one wall only."""
    code = f"import sys, os; sys.path.insert(0, {str(Path(sandboxed.__file__).parent)!r})\nimport sandboxed\n"
    command = [sys.executable, "-I", "-c", f"{code}{wall}\n{program}"]
    return subprocess.run(command, cwd=directory, check=False, capture_output=True).returncode


@pytest.mark.parametrize("wall", ["sandboxed.confine(os.getcwd())", "sys.addaudithook(sandboxed.guard(os.getcwd()))"])
def test_the_kernel_and_the_hook_each_hold_without_the_other(tmp_path: Path, wall: str) -> None:
    if "confine" in wall and (sys.platform != "linux" or sandboxed.landlock_version() < 1):
        pytest.skip("this kernel has no Landlock")
    inside, precious = tmp_path / "inside", tmp_path / "precious.txt"
    inside.mkdir()
    precious.write_text("kept")
    assert alone(wall, "open('mine', 'w').write('x'); os.remove('mine')", inside) == 0
    for change in ("open(f, 'w')", "os.remove(f)", "os.truncate(f, 0)", "os.execv('/bin/true', ['true'])"):
        assert alone(wall, f"f = {str(precious)!r}; {change}", inside) == 1
    assert precious.read_text() == "kept"


def test_the_program_sees_nothing_of_ours() -> None:
    assert run("import os; assert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, dict(os.environ)") == "passed"
    assert run("import dg_engine") == "failed"
