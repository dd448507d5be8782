"""aarch64 programs: what AT_HWCAP promises gives qemu-aarch64's results; exceptions are the kernel's signals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
MARCH = "-march=armv8.5-a+fp16+fp16fml+aes+sha2+sha3+sm4+crc+lse+rcpc+dotprod+flagm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no cross compiler"),
]

# arch/arm64/kernel/traps.c: undefined instructions are ILL_ILLOPC (qemu-user says ILL_ILLOPN).
EXPECTED_FAULTS = """\
brk: signal 5 code 1 at pc
udf: signal 4 code 1 at pc
undefined: signal 4 code 1 at pc
hlt: signal 4 code 1 at pc
hvc: signal 4 code 1 at pc
smc: signal 4 code 1 at pc
eret: signal 4 code 1 at pc
msr daif: signal 4 code 1 at pc
mrs sctlr: signal 4 code 1 at pc
misaligned pc: signal 7 code 1 at pc
misaligned sp: nothing
misaligned ldxr: signal 7 code 1 at fault address
misaligned ldr: fine
nothing
misaligned ldadd: signal 7 code 1 at fault address
dc ivac: signal 4 code 1 at pc
at: signal 4 code 1 at pc
wfi: nothing
wfe: nothing
yield: nothing
"""


def built(tmp_path: Path, name: str) -> Path:
    program = tmp_path / name
    command: list[str | Path] = [
        "aarch64-linux-gnu-gcc",
        "-w",
        "-O1",
        "-static",
        MARCH,
        "-o",
        program,
        PROGRAMS / f"{name}.c",
    ]
    subprocess.run(command, check=True)
    return program


def emulated(program: Path) -> str:
    command: list[str | Path] = [sys.executable, "-m", "emulator", "--run", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="no qemu-aarch64")
def test_promised_instructions_run(tmp_path: Path) -> None:
    program = built(tmp_path, "aarch64_instructions")
    reference = subprocess.run(
        ["qemu-aarch64", program], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    lines = emulated(program).splitlines()
    assert lines[-1] == "end"
    assert lines == reference.splitlines()


def test_exceptions(tmp_path: Path) -> None:
    assert emulated(built(tmp_path, "aarch64_faults")) == EXPECTED_FAULTS
