"""gdb 18 and lldb: attach, break, look, step, watch, call, go on to the end."""

from __future__ import annotations

import subprocess

import pytest

from tests.gdb.clients import WAIT_S, build, emugdb, run_gdb, serving
from tests.gdb.newer_clients import client

pytestmark = pytest.mark.slow


def in_order(text: str, *pieces: str) -> None:
    """Every piece is in the text, behind the one before."""
    place = 0
    for piece in pieces:
        found = text.find(piece, place)
        assert found >= 0, f"{piece!r} is not where it should be in:\n{text}"
        place = found + len(piece)


def test_gdb_18() -> None:
    gdb = client("gdb")
    program = build("numbers")
    script = [
        "tbreak leaf", "continue", "bt", "info registers rip", "info threads", "watch counter", "continue", "delete",
        "finish", "print leaf(20)", "print table[1]", "x/2i $pc", "info sharedlibrary", "info auxv", "info proc",
        "catch syscall write", "continue", "continue", "delete", "continue",
    ]  # fmt: skip
    with serving(emugdb(program)) as server:
        text, status = run_gdb(server.port, script, program, gdb)
    in_order(
        text, "Temporary breakpoint 1, leaf (n=0)", "#1  ", "in work (n=6)", "rip ", "<leaf", "watchpoint 2: counter",
        "Old value = 0", "New value = ", "= 41", "libm.so.6", "AT_ENTRY", "exe = ",
        "call to syscall write", "returned from syscall write", "exited with code",
    )  # fmt: skip
    assert status == 0


def test_lldb() -> None:
    lldb = client("lldb")
    program = build("numbers")
    with serving(emugdb(program)) as server:
        commands = [
            f"target create {program}", f"gdb-remote 127.0.0.1:{server.port}", "breakpoint set -n leaf", "continue",
            "bt", "register read rip rsp", "thread list", "finish", "expression leaf(20)", "expression -- counter = 5",
            "breakpoint delete -f",
            "watchpoint set variable counter", "continue", "watchpoint delete -f",
            "memory region $pc", "image list", "next", "step", "breakpoint set -n write", "continue", "bt", "continue",
        ]  # fmt: skip
        words = [word for command in commands for word in ("-o", command)]
        done = subprocess.run(
            [lldb, "--no-lldbinit", "--batch", *words],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_S, text=True,
        )  # fmt: skip
    in_order(
        done.stdout, "stop reason = signal SIGTRAP", "stop reason = breakpoint 1.1", "leaf(n=0)", "work(n=6)",
        "__libc_start_call_main", "rip = 0x", "rsp = 0x", "tid = ", "Return value: (int) $0 = 1", "(int) $1 = 41",
        "Watchpoint 1 hit", "old value: 5", "new value: ", "r-x", "libm.so.6", "libc.so.6",
        "stop reason = step over", "stop reason = step in", "`__libc_write", "main", "exited with status = ",
    )  # fmt: skip
