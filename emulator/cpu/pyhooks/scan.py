"""Instruction boundaries for the Python hooks: capstone's, with the kinds that hooks/scan*.c know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import capstone

MAX_LOOP = 20  # bytes `loops_on_itself` needs


class Insn(IntEnum):
    """enum Insn of hooks.h: what has to be known of an instruction before it runs."""

    PLAIN = 0
    UNDEFINED = 1
    UNSUPPORTED = 2
    PRIVILEGED = 3
    RDTSC = 4
    RDTSCP = 5
    RDRAND = 6
    POPF = 7
    CPUID = 8
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
        return (1, Insn.UNSUPPORTED) if first in _VECTOR else (0, Insn.PLAIN)
    _, size, mnemonic, operands = found
    word = mnemonic.split()[-1]
    if first in _VECTOR or (first == 0x8F and word != "pop"):
        return (size, Insn.PLAIN) if word in _BMI else (size, Insn.UNSUPPORTED)
    if word in _PRIVILEGED:
        return size, Insn.PRIVILEGED
    if word == "mov" and any(part.strip()[:2] in ("cr", "dr") for part in operands.split(",")):
        return size, Insn.PRIVILEGED
    return size, _KINDS.get(word, Insn.PLAIN)


def _loops_on_itself(code: bytes) -> bool:
    """Tell rep, loop, jrcxz and a jump to its own first byte from the instruction's bytes, zeroes behind the last."""
    n = next(n for n, byte in enumerate(code) if byte not in _PREFIXES and byte & 0xF0 != 0x40)
    rep = b"\xf2" in code[:n] or b"\xf3" in code[:n]
    op, rest = code[n], code[n + 1 :]
    if rep and (op & 0xF6 == 0xA4 or op & 0xFE == 0xAA or op & 0xFC in (0xAC, 0x6C)):
        return True
    if op & 0xFC == 0xE0 or op == 0xEB or op & 0xF0 == 0x70:
        return n + 2 + int.from_bytes(rest[:1], "little", signed=True) == 0
    if op in (0xE8, 0xE9):
        return n + 5 + int.from_bytes(rest[:4], "little", signed=True) == 0
    return op == 0x0F and rest[0] & 0xF0 == 0x80 and n + 6 + int.from_bytes(rest[1:5], "little", signed=True) == 0


def _kind_a64(w: int) -> Insn:
    """Arm ARM, C4.1: the system group, as hooks/scan_aarch64.c."""
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


def _scan_a64(code: bytes) -> tuple[int, Insn]:
    return (4, _kind_a64(int.from_bytes(code[:4], "little"))) if len(code) >= 4 else (0, Insn.PLAIN)


@dataclass(frozen=True, slots=True)
class Scanner:
    """Scanner of hooks.h: an instruction set's code."""

    lookahead: int
    scan: Callable[[bytes], tuple[int, Insn]]
    loops_on_itself: Callable[[bytes], bool] | None


SCANNERS = {
    "x86_64": Scanner(15, _scan_x86, _loops_on_itself),
    "aarch64": Scanner(0, _scan_a64, None),
}


def scan(scanner: str, code: bytes) -> tuple[int, int]:
    """Return length (0 if it cannot be decoded) and kind of the first instruction of `code`."""
    return SCANNERS[scanner].scan(bytes(code[:15]))
