"""Instruction boundaries against capstone, over the code of a whole libc."""

from __future__ import annotations

from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile

from emulator.cpu import mmu

LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")


@pytest.mark.skipif(mmu.HOOKS_KIND != "c", reason="the Python twin uses capstone itself")
@pytest.mark.skipif(not LIBC.exists(), reason="no x86-64 libc here")
def test_boundaries_are_capstones() -> None:
    with LIBC.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        assert section is not None
        code, base = section.data(), section["sh_addr"]
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    seen = 0
    for address, size, mnemonic, operands in machine.disasm_lite(code, base):
        at = address - base
        length, _kind = mmu.backend.scan("x86_64", code[at : at + 16])
        seen += 1
        if mnemonic.startswith(("v", "k")) or any(reg in operands for reg in ("ymm", "zmm")):
            continue
        assert length == size, f"{address:#x} {mnemonic} {operands}: {length} {size} {code[at : at + 15].hex()}"
    assert seen > 100_000
