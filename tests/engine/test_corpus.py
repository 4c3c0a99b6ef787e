"""What gets into a corpus, what does not, and that a vocabulary loses nothing."""

from __future__ import annotations

import gzip
import json
import re
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from dg_engine.errors import EngineError
from dg_engine.tokenizer import Tokenizer
from dg_engine.training.credentials import holds_secret
from dg_engine.training.decontamination import Benchmarks
from dg_engine.training.duplicates import Duplicates, sketch
from dg_engine.training.hygiene import path_fault, text_fault
from dg_engine.training.licences import LicenceRefused, is_permissive, permissive_licence
from dg_engine.training.projects import HELD_OUT, NAMES, TRAIN, VALIDATION
from dg_engine.training.tokenizer_training import SPECIAL_TOKENS, save_tokenizer, train_tokenizer

SOURCE = Path(__file__).read_text(encoding="utf-8")


def metadata(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        for one in value.split("|"):
            message[name.replace("_", "-")] = one
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT"}, "MIT"),
        ({"License_Expression": "GPL-3.0-only OR MIT"}, "GPL-3.0-only OR MIT"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "BSD 3-Clause License", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD-3-Clause"),
        ({"Classifier": "License :: OSI Approved :: MIT License|Programming Language :: Python"}, "MIT"),
        ({"License": "x" * 500, "Classifier": "License :: OSI Approved :: ISC License (ISCL)"}, "ISC"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved|License :: OSI Approved :: BSD License"}, "BSD"),
        ({"Classifier": "License :: OSI Approved :: The Unlicense (Unlicense)"}, "Unlicense"),
        ({"License": "The MIT License, see LICENSE.txt"}, "MIT"),
    ],
)
def test_a_permissive_licence_is_read_from_wherever_it_is_declared(fields: dict[str, str], licence: str) -> None:
    assert permissive_licence(metadata(**fields), []) == licence


@pytest.mark.parametrize(
    "fields",
    [
        {"License_Expression": "MPL-2.0 AND MIT"},
        {"License_Expression": "(MIT OR GPL-2.0-only) AND BSD-3-Clause"},
        {"License": "LGPL-2.1-only"},
        {"Classifier": "License :: OSI Approved :: BSD License|License :: OSI Approved :: GNU General Public License"},
        {"License": "MIT", "Classifier": "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"},
        {"License": "MIT OR Apache-2.0", "Classifier": "License :: Other/Proprietary License"},
        {
            "License": f"{' AND '.join(['MIT', 'ISC', 'Zlib', 'HPND', 'NCSA', 'BSL-1.0'] * 4)} AND GPL-3.0-only",
            "Classifier": "License :: OSI Approved :: MIT License",
        },
        {"License": "see the web site"},
        {"Name": "nothing-said"},
    ],
)
def test_copyleft_and_unknown_licences_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(LicenceRefused):
        permissive_licence(metadata(**fields), [])


@pytest.mark.parametrize(
    "name",
    [
        "UNLICENSED",
        "Apache 2.0 with Commons Clause",
        "MIT and SSPL-1.0",
        "Apache-2.0 + BUSL-1.1",
        "MIT (academic use only)",
        "CC-BY-NC-4.0 and MIT",
        "MIT, all rights reserved",
        "BSD with a patent clause of ours",
    ],
)
def test_a_permissive_word_does_not_excuse_the_others_in_a_licences_name(name: str) -> None:
    with pytest.raises(LicenceRefused, match=re.escape(name)):
        permissive_licence(metadata(License=name), [])


def test_the_licence_file_counts_only_where_nothing_is_declared() -> None:
    text = "Permission is hereby granted, free of\n  charge, to any person obtaining a copy of this software"
    assert permissive_licence(metadata(Name="x"), [text]) == "MIT"
    with pytest.raises(LicenceRefused):
        permissive_licence(metadata(License="GPLv3"), [text])
    assert is_permissive("MIT OR Apache-2.0")


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Apache License\n   Version 2.0, January 2004", "Apache-2.0"),
        (
            "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2 ... was distributed under the GNU General Public License",
            "PSF-2.0",
        ),
        (
            "Redistribution and use in source and binary forms ... Neither the name of the copyright holder",
            "BSD-3-Clause",
        ),
    ],
)
def test_a_licence_is_known_by_its_sentences(text: str, licence: str) -> None:
    assert permissive_licence(Message(), [text]) == licence


@pytest.mark.parametrize(
    "texts",
    [
        ["GNU GENERAL PUBLIC LICENSE\nVersion 3"],
        ["Apache License Version 2.0, with the Commons Clause License Condition v1.0"],
        ["Permission is hereby granted, free of charge, to any person obtaining a copy", "Mozilla Public License 2.0"],
        ["All rights reserved."],
        ["GNU GENERAL PUBLIC LICENSE\nVersion 3 ... parts are under the PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2"],
        ["Permission is hereby granted, free of charge, to any person obtaining a copy for non-commercial use"],
        ["Permission is hereby granted, free of charge, to any person obtaining a copy ... for Good, not Evil."],
        ["Functional Source License ... Permission is hereby granted, free of charge, to any person obtaining a copy"],
    ],
)
def test_one_licence_file_that_forbids_is_enough(texts: list[str]) -> None:
    with pytest.raises(LicenceRefused):
        permissive_licence(Message(), texts)


def test_no_project_is_in_two_splits() -> None:
    assert len(HELD_OUT) == 12
    assert len({*TRAIN, *VALIDATION, *HELD_OUT}) == sum(map(len, NAMES.values()))


GOOD = "def area(width, height):\n    return width * height\n\n\nclass Shape:\n    pass\n" * 5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD, ""),
        ("x = 1\n", "too short"),
        (GOOD * 10_000, "too long"),
        ("# Generated by a tool. DO NOT EDIT.\n" + GOOD, "generated"),
        (GOOD + "data = '" + "a" * 2000 + "'\n", "long lines"),
        ("x = [\n" + "    0x00, 0x01, 0x02,\n" * 200 + "]\n", "few letters"),
        (GOOD + "key = 'AKIAABCDEFGHIJKLMNOP'\n", "secret"),
        (GOOD + "print 'python 2'\n", "does not parse"),
        ("# SPDX-License-Identifier: GPL-2.0-only\n" + GOOD, "licence"),
        ("# SPDX-License-Identifier: MIT\n" + GOOD, ""),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: GPL-2.0-only\n" + GOOD, "licence"),
        ("# This is free software under the GNU GPL v3.\n" + GOOD, "licence"),
        ("# You can redistribute it under the terms of the GPLv3.\n" + GOOD, "licence"),
        ("# under the terms of the GNU Lesser\n# General Public License\n" + GOOD, "licence"),
        ("# Licensed under the GPLv3\n" + GOOD, "licence"),
        ("# Released under the terms\n# of the LGPL, see COPYING\n" + GOOD, "licence"),
        ('"""Areas.\n\nLicense: AGPL-3.0\n"""\n' + GOOD, "licence"),
        ('__license__ = "GPL v2"\n' + GOOD, "licence"),
        ("# Copyright Example Inc.\n# Proprietary and confidential.\n" + GOOD, "licence"),
        ("# From Example's answer, CC BY-NC-SA 4.0\n" + GOOD, "licence"),
        ("# Use of this software is governed by the Business Source License\n" + GOOD, "licence"),
        ("# MIT License, which is compatible with the GPL\n" + GOOD, ""),
        ("# Dual licensed under the MIT and GPL licenses.\n" + GOOD, ""),
        ('FORBIDDEN = ("GPL", "AGPL-3.0")\n\n\ndef confidential(license):\n    return license == "GPL"\n' + GOOD, ""),
    ],
)
def test_unfit_files_are_dropped_and_the_reason_is_named(text: str, fault: str) -> None:
    assert text_fault(text) == fault


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("pip/_vendor/rich/text.py", "vendored"),
        ("web/node_modules/left-pad/index.js", "vendored"),
        ("google/api/http_pb2.py", "generated"),
        ("types/index.d.ts", "generated"),
        ("dist/app.js", "generated"),
        ("static/jquery.min.js", "minified"),
        ("build/env.py", ""),
        ("flask/app.py", ""),
        ("src/app.ts", ""),
    ],
)
def test_vendored_generated_and_minified_files_are_known_by_their_path(path: str, fault: str) -> None:
    assert path_fault(path) == fault


RANDOM = "q7Zr1mXw9KfT3bYv5HsL8dNc2GjP6aRe4UoC0iWx"


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"token = 'ghp_{RANDOM[:36]}'",
        f"url = 'https://hooks.slack.com/services/T0123/B0123/{RANDOM[:24]}'",
        f"jwt = 'eyJ{RANDOM[:20]}.eyJ{RANDOM[:20]}.{RANDOM[:20]}'",
        f"client = connect('{RANDOM}')",
        "api_key = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b'",
        "api_key: Final[str] = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b'",
        "token := `9f86d081884c7d659a2feaa0c55ad015a3bf4f1b`",
        "os.environ['TOKEN'] = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b'",
        "key = os.getenv('SECRET_KEY', '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b')",
        "headers = {'X-Api-Key': '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b'}",
        "api_key = 'a3b1c2d4-5e6f-4a8b-9c0d-1e2f3a4b5c6d'",
        f"headers = {{'Authorization': 'Bearer {RANDOM}'}}",
        f"connection = 'AccountName=x;AccountKey={RANDOM}{RANDOM}==;EndpointSuffix=core.windows.net'",
        f"bot = '123456789:AA{RANDOM[:33]}'",
    ],
)
def test_what_looks_like_a_secret_is_kept_out(line: str) -> None:
    assert holds_secret(f"import os\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "sha256 = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'",
        "name = 'java/util/concurrent/ConcurrentHashMap8'",
        "error = 'this_is_a_long_snake_case_identifier_of_version_2'",
        "key = load_key('PRIVATE KEY')",
    ],
)
def test_checksums_alphabets_and_names_are_no_secrets(line: str) -> None:
    assert not holds_secret(f"import os\n{line}\n")


def test_near_duplicates_are_found_and_relatives_are_not() -> None:
    known = Duplicates()
    assert known.fault(SOURCE) == ""
    assert known.fault(SOURCE.replace("    ", "\t")) == "exact duplicate"
    assert known.fault(SOURCE.replace("Permission is", "Permission was")) == "near duplicate"
    assert known.fault(Path(str(np.__file__)).read_text(encoding="utf-8")) == ""


def test_a_text_that_is_remembered_by_its_sketch_is_known_again() -> None:
    known = Duplicates()
    known.remember(sketch(SOURCE))
    assert known.fault(SOURCE) == "exact duplicate"
    assert known.fault(SOURCE.replace("Permission is", "Permission was")) == "near duplicate"


SOLUTION = "    total = sum(abs(a - b) for a, b in zip(left, right))\n    return total / max(1, len(left))\n"
TASKS = {
    "humaneval": {
        "prompt": 'def f(left, right):\n    """How far."""\n',
        "canonical_solution": SOLUTION,
        "entry_point": "f",
    },
    "infilling": {"prompt": 'def f():\n    """Far."""\n', "canonical_solution": SOLUTION[:60], "suffix": SOLUTION[60:]},
    "mbpp": {"text": "Write a function.", "code": f"def f(left, right):\n{SOLUTION}", "test_list": []},
    "safim": {
        "prompt": "# TODO",
        "eval_prompt": "def f(left, right):\n{{completion}}    return total / max(1, len(left))\n",
        "ground_truth": SOLUTION[: SOLUTION.index("    return")],
    },
}


@pytest.mark.parametrize("form", TASKS)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_benchmarks_solution_is_found_in_other_clothes(tmp_path: Path, form: str, suffix: str) -> None:
    path = tmp_path / f"tasks{suffix}"
    line = json.dumps(TASKS[form]).encode() + b"\n"
    path.write_bytes(gzip.compress(line) if suffix.endswith("gz") else line)
    known = Benchmarks.read([path])
    assert known.leak_into(f"{GOOD}\nclass D:\n    def d(self, left, right):\n" + SOLUTION.replace("    ", "\t\t"))
    assert known.leak_into(f"x = 1\n{SOLUTION.splitlines()[0]}")
    assert not known.leak_into(GOOD)


@pytest.mark.parametrize(
    "idiom",
    [
        "    for i in range(len(x)):\n",
        '    print(x)\n\n\nif __name__ == "__main__":\n    main()\n',
        f"# {'-' * 70}\n",
        f"    [{'0, ' * 30}]\n",
    ],
)
def test_what_everybody_writes_is_no_leak(idiom: str) -> None:
    text = f"def f(x):\n{idiom}        print(i)\n"
    assert not Benchmarks([idiom]).leak_into(text)
    assert Benchmarks([SOLUTION]).leak_into(f"{text}{SOLUTION}")


@pytest.mark.parametrize("content", [b"text", b'{"question": "?"}\n', b"[1]\n"])
def test_a_file_that_is_no_benchmark_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.jsonl"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"no\.jsonl"):
        Benchmarks.read([path])


@pytest.fixture(scope="module")
def backend() -> Backend:
    return train_tokenizer([file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("*.py")], 700)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_the_vocabulary(backend: Backend, text: str) -> None:
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


def test_the_vocabulary_has_the_size_asked_for_and_the_special_tokens_first(backend: Backend) -> None:
    assert backend.get_vocab_size() == 700
    assert [backend.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(4))
    assert len({backend.encode(chr(byte)).ids[0] for byte in range(33, 127)}) > 60


def test_no_token_crosses_a_line_break_except_into_indentation(backend: Backend) -> None:
    tokenizer = Tokenizer(backend)
    for text in tokenizer.texts[4:]:
        _, broke, after = text.partition("\n")
        assert not broke or (not after.strip(" \t") and text.lstrip("\r").startswith("\n"))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("def f(self):\n        return 12", ["def", " f", "(", "self", "):", "\n        ", "return", " 1", "2"]),
        ("snake_case.__init__", ["snake", "_case", ".", "__init__"]),
        ("x = 'a'\r\n\n", ["x", " =", " '", "a", "'", "\r\n", "\n"]),
        ("foo((((((1", ["foo", "((((", "((", "1"]),
    ],
)
def test_pieces_are_cut_where_the_rules_say(backend: Backend, text: str, pieces: list[str]) -> None:
    found = backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == pieces


def test_transformers_opens_the_tokenizer(backend: Backend, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(backend, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(SOURCE, add_special_tokens=False) == backend.encode(SOURCE, add_special_tokens=False).ids
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.bos_token_id) == (0, 1, 2)
