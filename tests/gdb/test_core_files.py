"""gdb opens the core file of a process that died inside emugdb and finds what it finds in the kernel's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gdb.clients import build, missing
from tests.native.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PATTERN = Path("/proc/sys/kernel/core_pattern")
SCRIPT = """
bt
info threads
thread apply all bt 3
x/s mapping + 0x5000
p mine
p $orig_rax
p $mxcsr
p $_siginfo.si_signo
p/x $_siginfo._sifields._sigfault.si_addr
info sharedlibrary
thread 2
p mine
p $orig_rax
p (int)$rax
thread 3
p mine
"""


def seen(folder: Path, program: Path, command: list[str]) -> list[str]:
    """Die in `folder`, then look at what is left: gdb's lines without addresses and thread numbers, in no order."""
    folder.mkdir()
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, check=False, capture_output=True)
    assert done.returncode in (-11, 139), done.stderr
    script = folder / "script"
    script.write_text(SCRIPT)
    gdb = ["gdb", "-batch", "-nx", "-iex", "set auto-load safe-path /", "-x"]
    gdb += [str(script), str(program), str(folder / "core")]
    out = subprocess.run(gdb, check=True, capture_output=True, text=True).stdout
    # gdb 13 warns of the size of a newer kernel's xstate in between
    lines = re.sub(r"warning: Unexpected size of section.*\n", "", out).splitlines()
    lines = [re.sub(r"LWP \d+|\$\d+| +", " ", line) for line in lines if line]
    # the kernel writes the threads in the order in which they died: sorted
    return sorted(re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", line) for line in lines)


@pytest.mark.skipif(
    PATTERN.exists() and PATTERN.read_text().strip() != "core", reason="core_pattern is not the kernel's own"
)
@pytest.mark.skipif(bool(missing("gdb")), reason=str(missing("gdb")))
def test_gdb_sees_the_same(tmp_path: Path) -> None:
    program = build("crasher")
    native = seen(tmp_path / "native", program, [str(program)])
    emulated = seen(tmp_path / "emulated", program, [sys.executable, "-m", "emulator", "--run", str(program)])
    assert "in a mapping" in "\n".join(emulated)
    assert emulated == native
