"""--strace's lines, against strace(1)'s own habits."""

from __future__ import annotations

import pytest

from emulator.abi.errno import E
from emulator.abi.signals import Signal as LinuxSignal
from emulator.debug.errno_text import TEXT
from emulator.debug.signal_numbers import from_gdb, to_gdb
from emulator.debug.strace_arguments import flags_text, quoted
from gdbstub.signals import Signal


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", '"plain"'),
        (b'a"b\\c', '"a\\"b\\\\c"'),
        (b"\n\t\r\0", '"\\n\\t\\r\\0"'),
        (b"\0001", '"\\0001"'),
        (b"\x7fELF\2", '"\\177ELF\\2"'),
        (b"x" * 40, '"' + "x" * 32 + '"...'),
    ],
)
def test_strings(data: bytes, text: str) -> None:
    assert quoted(data) == text


def test_flags() -> None:
    names = {1: "A", 2: "B", 4: "C"}
    assert flags_text(3, names) == "A|B"
    assert flags_text(0, names) == "0"
    assert flags_text(0x14, names) == "C|0x10"


def test_every_errno_a_guest_sees_has_a_text() -> None:
    assert {e.name for e in E if e not in TEXT and not e.name.startswith("ERESTART")} == set()


def test_signal_numbers_go_by_name() -> None:
    assert to_gdb(LinuxSignal.SIGUSR1) is Signal.SIGUSR1
    assert from_gdb(Signal.SIGSTOP) == LinuxSignal.SIGSTOP
    assert to_gdb(16) is Signal.UNKNOWN  # SIGSTKFLT
    for signo in (*range(1, 16), *range(17, 65)):
        assert from_gdb(to_gdb(signo)) == signo
