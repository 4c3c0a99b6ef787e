"""The Emacs package by itself, in each Emacs that is here: its own tests, the byte compiler and the linters."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from desk import SERVER
from driver_emacs import PACKAGE, VERSIONS, missing, program
from programs import CACHE

FILES = sorted(PACKAGE.glob("*.el"))
TESTS = sorted((PACKAGE / "tests").glob("*-tests.el"))


@pytest.fixture(params=VERSIONS)
def emacs(request: pytest.FixtureRequest) -> Path:
    """Each Emacs; the tests of one that is not here are skipped."""
    if (reason := missing(request.param)) is not None:
        pytest.skip(f"{request.param} is not here ({reason}): make editors")
    return program(request.param)


def batch(program: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Emacs without a terminal, with the package in its load path and a home of its own."""
    # Not -Q: Debian's eglot for Emacs 28 lies in a directory of packages.
    command = [str(program), "-q", "--batch", "-L", str(PACKAGE), *arguments]
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)


def strings(parts: Sequence[object]) -> str:
    """A Lisp list of strings."""
    return "(list {})".format(" ".join(f'"{part}"' for part in parts))


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.stem)
def test_its_own_tests_pass(emacs: Path, tests: Path, tmp_path: Path) -> None:
    load = ["-L", str(tests.parent), "-l", str(tests)]
    server = f"(setq dg-lsp-tests-server {strings(SERVER)})"
    done = batch(emacs, tmp_path, *load, "--eval", server, "-f", "ert-run-tests-batch-and-exit")
    assert done.returncode == 0, done.stderr
    assert ", 0 unexpected" in done.stderr


def test_it_compiles_without_a_warning(emacs: Path, tmp_path: Path) -> None:
    copies = [shutil.copy(file, tmp_path) for file in FILES]
    done = batch(emacs, tmp_path, "-L", str(tmp_path), "-f", "batch-byte-compile", *map(str, copies))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob("*.elc"))) == len(FILES)


def test_checkdoc_has_nothing_to_say(emacs: Path, tmp_path: Path) -> None:
    check = f"(mapc #'checkdoc-file {strings(sorted(PACKAGE.rglob('*.el')))})"
    done = batch(emacs, tmp_path, "-l", "checkdoc", "--eval", check)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


PACKAGE_LINT = """
(progn
  (require 'package-lint)
  (setq package-lint-main-file "{main}"
        ;; Without the archives' lists it could not tell whether a dependency can be had.
        package-archive-contents (list (list 'eglot (package-desc-create :name 'eglot :version '(1 9)))
                                       (list 'emacs (package-desc-create :name 'emacs :version '(28 1)))))
  (dolist (file {files})
    (with-current-buffer (find-file-noselect file)
      (pcase-dolist (`(,line ,_ ,kind ,text) (package-lint-buffer))
        ;; It knows the releases of its own day alone.
        (unless (string-prefix-p "This makes the package uninstallable in all released" text)
          (princ (format "%s:%s: %s: %s\\n" (file-name-nondirectory file) line kind text)))))))
"""


def test_package_lint_has_nothing_to_say(emacs: Path, tmp_path: Path) -> None:
    # Where Debian's package is installed already, it is not fetched once more.
    roots = (CACHE / "emacs-30" / "root", Path("/"))
    found = [path for root in roots for path in root.glob("usr/share/emacs/site-lisp/elpa-src/package-lint-*")]
    if not found:
        pytest.skip("package-lint is not here: make editors")
    check = PACKAGE_LINT.format(main=PACKAGE / "dg-lsp.el", files=strings(FILES))
    done = batch(emacs, tmp_path, "-L", str(found[0]), "--eval", check)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
