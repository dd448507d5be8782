"""`#!` lines: the table of execve(2) and of fs/binfmt_script.c."""

from __future__ import annotations

import pytest

from emulator.abi.errno import E
from emulator.loader import script
from emulator.loader.elf import LoadError
from emulator.loader.script import Shebang


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"#!/bin/sh\n", Shebang(b"/bin/sh", None)),
        (b"#! /bin/sh\n", Shebang(b"/bin/sh", None)),
        (b"#!\t /bin/sh  \t\n", Shebang(b"/bin/sh", None)),
        (b"#!/bin/sh -e\n", Shebang(b"/bin/sh", b"-e")),
        (b"#!/usr/bin/env  python3 -u  \n", Shebang(b"/usr/bin/env", b"python3 -u")),
        (b"#!/bin/sh", Shebang(b"/bin/sh", None)),
        (b"#!/bin/sh\0junk\n", Shebang(b"/bin/sh", None)),
        (b"#!/bin/sh " + b"a" * 300, Shebang(b"/bin/sh", b"a" * (255 - 10))),
        (b"#!" + b"x" * 253 + b"\n", Shebang(b"x" * 253, None)),
    ],
)
def test_lines(line: bytes, expected: Shebang) -> None:
    assert script.parse(line) == expected


@pytest.mark.parametrize(
    "line", [b"#!", b"#!\n", b"#! \t \n", b"#!" + b" " * 300, b"#!" + b"x" * 300, b"#!\0/bin/sh\n"]
)
def test_refused(line: bytes) -> None:
    with pytest.raises(LoadError) as caught:
        script.parse(line)
    assert caught.value.errno is E.ENOEXEC


def test_rewrite() -> None:
    bang = Shebang(b"/bin/sh", b"-e")
    assert bang.rewrite(b"./s", [b"s", b"1"]) == [b"/bin/sh", b"-e", b"./s", b"1"]
    assert Shebang(b"/bin/sh", None).rewrite(b"./s", [b""]) == [b"/bin/sh", b"./s"]
