"""Classic BPF as seccomp(2) uses it: checked when it is installed, run on every system call.

Rule: what `check` accepts always ends and never reads outside the data.
Source: seccomp(2), Documentation/networking/filter.rst; net/core/filter.c (bpf_check_classic), kernel/seccomp.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from emulator.abi.errno import E
from emulator.errors import LinuxError

MAX_INSNS = 4096
WORDS = 16  # of scratch memory
_MASK = 0xFFFFFFFF
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
LD_ABS, LD_IMM, LD_LEN, LD_MEM, LDX_IMM, LDX_LEN, LDX_MEM = 0x20, 0x00, 0x80, 0x60, 0x01, 0x81, 0x61
RET_K, RET_A, TAX, TXA, NEG, JA = 0x06, 0x16, 0x07, 0x87, 0x84, 0x05
_PLAIN = frozenset((LD_IMM, LD_LEN, LDX_IMM, LDX_LEN, RET_K, RET_A, TAX, TXA, NEG))
_ARITHMETIC = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0)  # ADD SUB MUL DIV OR AND LSH RSH XOR
_CONDITIONS = (0x10, 0x20, 0x30, 0x40)  # JEQ JGT JGE JSET


class Insn(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


def check(program: Sequence[Insn], size: int) -> None:
    """Refuse with EINVAL what the kernel refuses for data of `size` bytes."""
    if not 0 < len(program) <= MAX_INSNS:
        raise LinuxError(E.EINVAL)
    for place, insn in enumerate(program):
        if not _valid(insn, len(program) - place - 1, size):
            raise LinuxError(E.EINVAL)
    if program[-1].code not in (RET_K, RET_A) or not _memory_is_set(program):
        raise LinuxError(E.EINVAL)


def _memory_is_set(program: Sequence[Insn]) -> bool:
    """Is every word of scratch memory stored on every way to where it is loaded? (check_load_and_stores)"""
    at_entry = [_MASK] * (len(program) + 1)  # jumps lead forward only
    valid = 0
    for place, (code, jt, jf, k) in enumerate(program):
        valid &= at_entry[place]
        if code in (ST, STX):
            valid |= 1 << k
        elif code in (LD_MEM, LDX_MEM):
            if not valid >> k & 1:
                return False
        elif code & 7 == JMP:
            for target in (k,) if code == JA else (jt, jf):
                at_entry[place + 1 + target] &= valid
            valid = _MASK
    return True


def _valid(insn: Insn, behind: int, size: int) -> bool:
    code, operation = insn.code, insn.code & 0xF0
    if code in _PLAIN:
        return True
    if code == LD_ABS:
        return insn.k % 4 == 0 and insn.k < size
    if code in (LD_MEM, LDX_MEM, ST, STX):
        return insn.k < WORDS
    if code == JA:
        return insn.k < behind
    if code & 7 == ALU and code <= 0xAC and operation in _ARITHMETIC:
        if code & 8:
            return True
        return not (operation == 0x30 and not insn.k) and not (operation in (0x60, 0x70) and insn.k >= 32)
    if code & 7 == JMP and code <= 0x4D and operation in _CONDITIONS:
        return insn.jt < behind and insn.jf < behind
    return False


def run(program: Sequence[Insn], data: bytes) -> int:
    """The program's answer for `data`, whose 32-bit words are little endian."""
    a = x = at = 0
    memory = [0] * WORDS
    while True:
        code, jt, jf, k = program[at]
        at += 1
        kind = code & 7
        if code == LD_ABS:
            a = int.from_bytes(data[k : k + 4], "little")
        elif kind == JMP:
            if code == JA:
                at += k
            else:
                at += jt if _holds(code & 0xF0, a, x if code & 8 else k) else jf
        elif kind == RET:
            return a if code == RET_A else k
        elif kind == ALU:
            operand = x if code & 8 else k
            if code & 0xF0 == 0x30 and not operand:
                return 0  # a division by X = 0
            a = -a & _MASK if code == NEG else _compute(code & 0xF0, a, operand)
        elif kind == LD:
            a = {LD_IMM: k, LD_LEN: len(data)}.get(code, memory[k % WORDS])
        elif kind == LDX:
            x = {LDX_IMM: k, LDX_LEN: len(data)}.get(code, memory[k % WORDS])
        elif kind in (ST, STX):
            memory[k] = a if kind == ST else x
        elif code == TAX:
            x = a
        else:
            a = x


def _holds(condition: int, a: int, b: int) -> bool:
    match condition:
        case 0x10:
            return a == b
        case 0x20:
            return a > b
        case 0x30:
            return a >= b
        case _:
            return bool(a & b)


def _compute(operation: int, a: int, b: int) -> int:
    match operation:
        case 0x00:
            result = a + b
        case 0x10:
            result = a - b
        case 0x20:
            result = a * b
        case 0x30:
            result = a // b
        case 0x40:
            result = a | b
        case 0x50:
            result = a & b
        case 0x60:
            result = a << (b & 31)
        case 0x70:
            result = a >> (b & 31)
        case _:
            result = a ^ b
    return result & _MASK
