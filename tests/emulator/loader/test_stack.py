"""The initial stack, byte for byte what the kernel lays: a native program without ASLR is the oracle."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from emulator.abi.auxv import At
from emulator.arch import X86_64
from emulator.loader import stack
from emulator.loader.stack import ProgramFacts

TOP = 0x7FFFFFFFF000
FACTS = ProgramFacts(0x400040, 10, 56, 0x401000, 0x7FFFF7FC0000)

DUMPER = r"""
#include <stdio.h>
#include <stdint.h>
int main(int argc, char **argv, char **envp) {
    uintptr_t *sp = (uintptr_t *)argv - 1, *end = (uintptr_t *)0x7ffffffff000;
    (void)argc; (void)envp;
    printf("[%lu", (unsigned long)(uintptr_t)sp);
    for (uintptr_t *p = sp; p < end; p++) printf(",%lu", (unsigned long)*p);
    printf("]\n");
    return 0;
}
"""


def auxv_of(image: bytes, argc: int, envc: int) -> dict[int, int]:
    at = 8 * (1 + argc + 1 + envc + 1)
    pairs: dict[int, int] = {}
    while True:
        tag, value = struct.unpack_from("<QQ", image, at)
        if tag == 0:
            return pairs
        pairs[tag] = value
        at += 16


def test_layout() -> None:
    built = stack.build(X86_64, TOP, b"/bin/x", [b"x", b"one"], [b"A=1", b"B="], FACTS, bytes(range(16)))
    assert built.sp % 16 == 0
    assert built.sp + len(built.image) == TOP
    argc, arg0, arg1, null, env0, env1, null2 = struct.unpack_from("<7Q", built.image)
    assert (argc, null, null2) == (2, 0, 0)

    def text(address: int) -> bytes:
        return built.image[address - built.sp :].split(b"\0")[0]

    assert [text(a) for a in (arg0, arg1, env0, env1)] == [b"x", b"one", b"A=1", b"B="]
    aux = auxv_of(built.image, 2, 2)
    assert text(aux[At.EXECFN]) == b"/bin/x"
    assert text(aux[At.PLATFORM]) == b"x86_64"
    assert built.image[aux[At.RANDOM] - built.sp :][:16] == bytes(range(16))
    assert aux[At.ENTRY] == FACTS.entry
    assert At.SYSINFO_EHDR not in aux
    assert (built.arg_start, built.env_end) == (arg0, aux[At.EXECFN])


@pytest.mark.skipif(not shutil.which("gcc") or os.uname().machine != "x86_64", reason="needs a native x86-64 gcc")
def test_as_the_host_kernel(tmp_path: Path) -> None:
    source, program = tmp_path / "dump.c", tmp_path / "dump"
    source.write_text(DUMPER)
    subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
    argv, env = [str(program), "two", ""], {"ONE": "1", "EMPTY": ""}
    run = subprocess.run(["setarch", "-R", *argv], env=env, capture_output=True, check=False)
    if run.returncode:
        pytest.skip("setarch -R is not allowed here")
    native_sp, *words = json.loads(run.stdout)
    native = struct.pack(f"<{len(words)}Q", *words)
    envp = [f"{name}={value}".encode() for name, value in env.items()]
    theirs = auxv_of(native, len(argv), len(envp))
    facts = ProgramFacts(theirs[At.PHDR], theirs[At.PHNUM], 56, theirs[At.ENTRY], 0, 0, 0, 0, 0)
    random_at = theirs[At.RANDOM] - native_sp
    built = stack.build(
        X86_64, TOP, argv[0].encode(), [a.encode() for a in argv], envp, facts, native[random_at : random_at + 16]
    )
    ours = auxv_of(built.image, len(argv), len(envp))
    strings = theirs[At.RANDOM]
    assert ours[At.RANDOM] == strings
    assert built.image[strings - built.sp :] == native[random_at:]
    assert list(ours) == [tag for tag in theirs if tag != At.SYSINFO_EHDR]
    differ = {At.HWCAP, At.HWCAP2, At.MINSIGSTKSZ, At.UID, At.EUID, At.GID, At.EGID, At.SYSINFO_EHDR}
    assert {t: v for t, v in ours.items() if t not in differ} == {t: v for t, v in theirs.items() if t not in differ}
    assert built.sp == (native_sp + 16) & -16  # they have AT_SYSINFO_EHDR
