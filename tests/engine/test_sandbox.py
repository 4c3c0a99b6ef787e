"""The sandbox lets sound programs pass and nothing out; each of its walls stands alone."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tracemalloc
from contextlib import suppress
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


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells when somebody else's child ends")
def test_an_idle_program_ends_though_whoever_runs_it_was_killed(tmp_path: Path) -> None:
    program = "import time\nopen('begun', 'w')\ntime.sleep(600)"
    code = f"from dg_engine.evaluation import sandbox\nsandbox.run({program!r}, sandbox.Limits(wall_s=2))"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}) as runner:
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
        while not (found := children.read_text().split()) or not Path(f"/proc/{found[0]}/cwd/begun").exists():
            assert runner.poll() is None
        ended = os.pidfd_open(int(found[0]))
        runner.kill()
    try:
        assert select.select([ended], [], [], 20)[0]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(ended, signal.SIGKILL)
        os.close(ended)


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


def test_a_lower_limit_of_the_user_is_kept_and_fails_no_sound_program() -> None:
    resource = pytest.importorskip("resource")
    drop_from_bounding_set, sys_resource = 24, 24

    def lower() -> None:
        if sys.platform == "linux":  # where root may raise every limit again by this capability
            ctypes.CDLL(None).prctl(drop_from_bounding_set, sys_resource)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    code = "from dg_engine.evaluation.sandbox import run\nprint(run('assert 1'), run('assert 0'))"
    told = subprocess.run([sys.executable, "-c", code], preexec_fn=lower, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["passed", "failed"]


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)") == "failed"


def test_a_program_is_the_main_module() -> None:
    assert run("import pickle\nclass A: pass\nassert type(pickle.loads(pickle.dumps(A()))) is A") == "passed"
    assert run("import sys\nassert vars(sys.modules['__main__']) is globals()") == "passed"
    assert run("assert __name__ == '__main__'\nassert not {'word', 'main', 'shut_in'} & set(globals())") == "passed"


def test_sets_have_the_same_order_in_every_run() -> None:
    """A draw of the hash seed would pass this once in 2^64."""
    said = [sys.executable, "-c", "print(hash('order'))"]
    expected = subprocess.run(said, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True).stdout
    assert run(f"assert hash('order') == {expected}") == "passed"


STARTS = {
    "subprocess": "import subprocess; subprocess.run(['/bin/touch', 'made'])",
    "fork": "import os; os.fork()",
    "spawn": "import os; os.posix_spawn('/bin/touch', ['touch', 'made'], {})",
    "exec": "import os; os.execv('/bin/touch', ['touch', 'made'])",
    "multiprocessing": "import multiprocessing as m; p = m.get_context('spawn').Process(target=print); p.start()",
    "underneath": "import _posixsubprocess; _posixsubprocess.fork_exec()",
    "kill": f"import os; os.kill({os.getpid()}, 0)",
    "limit": f"import resource; resource.prlimit({os.getpid()}, resource.RLIMIT_CORE)",
}
for name, arguments in {
    "setpriority": f"os.PRIO_PROCESS, {os.getpid()}, os.getpriority(os.PRIO_PROCESS, {os.getpid()})",
    "sched_setaffinity": f"{os.getpid()}, os.sched_getaffinity({os.getpid()})",
    "sched_setparam": f"{os.getpid()}, os.sched_getparam({os.getpid()})",
    "sched_setscheduler": f"{os.getpid()}, os.SCHED_OTHER, os.sched_param(0)",
}.items():
    if hasattr(os, name):
        STARTS[name] = f"import os; os.{name}({arguments})"
if hasattr(signal, "pidfd_send_signal"):
    for module in ("signal", "_signal"):
        send = f"{module}.pidfd_send_signal(os.pidfd_open({os.getpid()}), 0)"
        STARTS[f"{module} by descriptor"] = f"import os, {module}; {send}"


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


@pytest.mark.parametrize("make", ["mkdir(name)", "symlink('.', name)", "mkfifo(name)", "mknod(name)"])
def test_few_names_of_any_kind_are_made(make: str) -> None:
    """Each would cost the clean-up more time than its making."""
    assert run(f"import os\nfor name in map(str, range(1000)): os.{make}", QUICK) == "failed"
    if make.startswith(("mkdir", "symlink")):
        assert run(f"import os\nfor name in 'ab': os.{make}", QUICK) == "passed"


def test_a_program_cannot_fill_the_memory_of_whoever_runs_it() -> None:
    flood = "import os\nfor fd in range(3, 9):\n    try:\n        while True: os.write(fd, bytes(1 << 20))\n"
    tracemalloc.start()
    try:
        assert run(f"{flood}    except OSError: pass", QUICK) == "failed"
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


CHANGES = {
    "write": "open({path!r}, 'w')",
    "append": "open({path!r}, 'ab')",
    "open": "import os; os.open({path!r}, os.O_WRONLY)",
    "remove": "import os; os.remove({path!r})",
    "move": "import os; os.rename({path!r}, 'here')",
    "truncate": "import os; os.truncate({path!r}, 0)",
    "mode": "import os; os.chmod({path!r}, 0)",
    "mode of a descriptor": "import os; os.fchmod(os.open({path!r}, os.O_RDONLY), 0)",
    "mode by number": "import os; os.chmod(os.open({path!r}, os.O_RDONLY), 0)",
    "mode in a folder": "import os; d = os.path.dirname({path!r}); os.chmod('precious.txt', 0, dir_fd=os.open(d, 0))",
    "times of a descriptor": "import os; os.utime(os.open({path!r}, os.O_RDONLY), (1, 1))",
    "attribute": "import os; os.setxattr({path!r}, 'user.mine', b'1')",
    "remove in a folder": "import os; d = os.path.dirname({path!r}); os.remove('precious.txt', dir_fd=os.open(d, 0))",
    "clear": "import os, shutil; shutil.rmtree(os.path.dirname({path!r}))",
    "link": "import os; os.symlink({path!r}, 'here'); open('here', 'w')",
    "leave": "import os; os.chdir(os.path.dirname({path!r})); open('precious.txt', 'w')",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_else_can_be_changed(tmp_path: Path, change: str) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    before = precious.stat()
    assert run(change.format(path=str(tmp_path / "precious.txt"))) == "failed"
    assert precious.read_text() == "kept"
    assert (precious.stat().st_mode, precious.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a descriptor is open on")
def test_its_own_files_may_be_changed_in_any_way() -> None:
    changes = (
        "os.chmod('a/b', 0o600); os.fchmod(fd, 0o644); os.utime(fd, (1, 1)); os.rename('a/b', 'a/c'); os.chdir('a')"
    )
    assert run(f"import os; os.mkdir('a'); fd = os.open('a/b', os.O_RDWR | os.O_CREAT); {changes}") == "passed"
    assert run("import os, shutil; os.makedirs('a/b'); open('a/b/c', 'w'); shutil.rmtree('a')") == "passed"


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
    removal = "os.remove('precious.txt', dir_fd=os.open(os.path.dirname(f), 0))"
    for change in ("open(f, 'w')", "os.remove(f)", removal, "os.truncate(f, 0)", "os.execv('/bin/true', ['true'])"):
        assert alone(wall, f"f = {str(precious)!r}; {change}", inside) == 1
    if "guard" in wall or sandboxed.landlock_version() >= 6:
        assert alone(wall, "os.kill(os.getppid(), 0)", inside) == 1
    assert precious.read_text() == "kept"


def test_the_program_sees_nothing_of_ours() -> None:
    assert run("import os; assert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}, dict(os.environ)") == "passed"
    assert run("import dg_engine") == "failed"


@pytest.mark.parametrize("module", ["sandboxed", "numpy", "theirs"])
def test_nothing_but_the_standard_library_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / "theirs.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(f"try:\n    import {module}\nexcept ModuleNotFoundError: pass\nelse: raise SystemExit") == "passed"
