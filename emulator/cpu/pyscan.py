"""Instruction boundaries for the Python hooks: capstone's, with the kinds that hooks/scan.c knows."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import capstone


class Isa(IntEnum):
    """enum Isa of hooks.h."""

    X86_64 = 0
    AARCH64 = 1
    FIXED4 = 2


class Insn(IntEnum):
    """enum Insn of hooks.h: what has to be known of an instruction before it runs."""

    PLAIN = 0
    UNDEFINED = 1
    PRIVILEGED = 2
    RDTSC = 3
    RDTSCP = 4
    RDRAND = 5
    POPF = 6
    CPUID = 7
    SEGMENT = 8
    COUNTER = 9
    MXCSR = 10


_PRIVILEGED = frozenset(
    (
        "insb", "insd", "outsb", "outsd", "in", "out", "hlt", "cli", "sti", "lldt", "ltr", "lgdt", "lidt", "lmsw",
        "invlpg", "swapgs", "xsetbv", "clac", "stac", "clts", "sysret", "sysretq", "invd", "wbinvd", "wrmsr", "rdmsr",
        "rdpmc", "sysexit", "sysexitq",
    )
)  # fmt: skip
_KINDS = {
    "rdtsc": Insn.RDTSC,
    "rdtscp": Insn.RDTSCP,
    "rdrand": Insn.RDRAND,
    "rdseed": Insn.RDRAND,
    "popf": Insn.POPF,
    "popfq": Insn.POPF,
    "cpuid": Insn.CPUID,
    "ldmxcsr": Insn.MXCSR,
    "stmxcsr": Insn.MXCSR,
}
_BMI = frozenset(
    ("andn", "bextr", "blsi", "blsmsk", "blsr", "bzhi", "mulx", "pdep", "pext", "rorx", "sarx", "shlx", "shrx")
)
_PREFIXES = frozenset((0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65))
_VECTOR = frozenset((0xC4, 0xC5, 0x62))
_machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


@lru_cache(maxsize=1 << 16)
def _scan_x86(code: bytes) -> tuple[int, Insn]:
    found = next(_machine.disasm_lite(code, 0, 1), None)
    first = next((byte for byte in code if byte not in _PREFIXES), 0)
    if found is None:
        return (1, Insn.UNDEFINED) if first in _VECTOR else (0, Insn.PLAIN)
    _, size, mnemonic, operands = found
    word = mnemonic.split()[-1]
    if first in _VECTOR or (first == 0x8F and word != "pop"):
        return (size, Insn.PLAIN) if word in _BMI else (size, Insn.UNDEFINED)
    if word in _PRIVILEGED:
        return size, Insn.PRIVILEGED
    if word == "mov" and any(part.strip()[:2] in ("cr", "dr") for part in operands.split(",")):
        return size, Insn.PRIVILEGED
    return size, _KINDS.get(word, Insn.PLAIN)


def _kind_a64(w: int) -> Insn:
    """Arm ARM, C4.1: the system group, as hooks/scan.c."""
    if w & 0xFFE0001F in (0xD4000002, 0xD4000003) or w & 0xFFFFFC1F == 0xD69F0000 or w in (0xD69F03E0, 0xD6BF03E0):
        return Insn.PRIVILEGED
    if w & 0xFFC00000 != 0xD5000000:
        return Insn.PLAIN
    op0, op1, crn, op2 = w >> 19 & 3, w >> 16 & 7, w >> 12 & 15, w >> 5 & 7
    if op0 >= 2:
        if w & ~31 in (0xD53BE020, 0xD53BE040, 0xD53BE0C0):
            return Insn.COUNTER
        if w & ~63 == 0xD53B2400:
            return Insn.RDRAND
        return Insn.PLAIN if op1 == 3 else Insn.PRIVILEGED
    if op0 == 0 and crn == 4:
        allowed = op2 <= 2 if op1 == 0 else op1 == 3 and op2 not in (6, 7)
        return Insn.PLAIN if allowed else Insn.PRIVILEGED
    if op0 == 1 and not (crn == 7 and op1 == 3):
        return Insn.PRIVILEGED
    return Insn.PLAIN


def scan(isa: int, code: bytes) -> tuple[int, int]:
    """Return length (0 if it cannot be decoded) and kind of the first instruction of `code`."""
    if isa == Isa.X86_64:
        return _scan_x86(bytes(code[:15]))
    if len(code) < 4:
        return 0, Insn.PLAIN
    return 4, _kind_a64(int.from_bytes(code[:4], "little")) if isa == Isa.AARCH64 else Insn.PLAIN
