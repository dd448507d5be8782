"""Programs with a debugger attached that sets breakpoints, catches, steps and lets go: the same bytes as without."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gdb.clients import listening_port, missing, run_gdb
from tests.native.harness import ROOT
from tests.programs.test_programs import PROGRAMS, outcome, workplace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = (
    "ls",
    "bash builtins",
    "bash pipeline",
    "python stdlib",
    "python threads",
    "sqlite",
    "perl",
    "openssl digest",
    "git",
    "gcc hello",
)
SCRIPT = [
    "set detach-on-fork on",
    "catch syscall openat",
    "continue",
    "stepi",
    "info registers rip",
    "continue",
    "bt 3",
    "break *$pc",
    "x/4i $pc",
    "info proc mappings",
    "delete",
    "stepi 20",
    "detach",
]


def debugged_output(name: str) -> bytes:
    """Standard output of the program when a gdb was there for a while."""
    program = PROGRAMS[name].command
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    path = shutil.which(program[0], path=environment["PATH"]) or program[0]
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from emulator.cli import main; main()"
    with workplace(name) as folder:
        output = folder.with_suffix(".out")
        words = [sys.executable, "-c", start, "--once", "--argv0", program[0], "127.0.0.1:0", path, *program[1:]]
        with open(output, "wb") as out:
            server = subprocess.Popen(
                words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, umask=0o22
            )  # fmt: skip
        try:
            text, status = run_gdb(listening_port(server), SCRIPT, None)
            assert status == 0, text
            assert "detached" in text, text
            deadline = time.monotonic() + 150
            while server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert server.poll() is not None, "the program did not go on to its end"
            return output.read_bytes().replace(str(folder).encode(), b"HERE")
        finally:
            if server.poll() is None:
                server.terminate()
            server.wait(10)
            if server.stderr is not None:
                server.stderr.close()
            Path(output).unlink()


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_after_a_debugger_was_there(name: str) -> None:
    if reason := missing("gdb", *PROGRAMS[name].needs):
        pytest.skip(reason)
    assert debugged_output(name) == outcome(name, emulated=False)[1]
