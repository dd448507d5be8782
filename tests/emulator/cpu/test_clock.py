"""The clock is exact: random runs with random limits, points coming and going, against Unicorn's own `count=`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from unicorn import UC_ARCH_ARM64, UC_ARCH_X86, UC_MODE_64, UC_MODE_ARM, arm64_const, x86_const
from unicorn.unicorn_py3 import Uc

from emulator.cpu.exits import BreakpointHit, Simple, WatchHit, WatchKind
from tests.emulator.cpu.machine import AARCH64, CODE, DATA, RWX, STACK, X86_64, Bare, assemble

X86_PROGRAM = f"""
start:  mov r12d, 12345
        mov rbx, {DATA}
again:  imul r12d, r12d, 1664525
        add r12d, 1013904223
        mov eax, r12d
        shr eax, 24
        test al, 1
        jz even
        call odd
        jmp next
even:   mov ecx, eax
        and ecx, 15
        lea rsi, [rbx]
        lea rdi, [rbx + 3000]
        rep movsb
        cvtsi2sd xmm0, eax
        addsd xmm1, xmm0
        mulsd xmm2, xmm1
        test al, 2
        jz next
        lock xadd [rbx + 8], rax
        mov ecx, 3
        mov edi, {DATA} + 5000
        rep stosq
next:   inc qword ptr [rbx]
        test r12d, 0x100000
        jnz away
        jmp again
odd:    push rax
        mov [rbx + rax * 4 + 64], eax
        cmp eax, 128
        jb 1f
        pop rdx
        xor edx, eax
        ret
1:      add rsp, 8
        fld1
        fadd st(0), st(0)
        fistp dword ptr [rbx + 16]
        ret
        .balign 4096
        .skip 4090
away:   mov eax, 1
        mov ecx, 2
        add r8, rax
        jmp again
"""

A64_PROGRAM = f"""
        movz x19, #0x3039
        movz x20, #{DATA >> 16}, lsl #16
        movz w22, #0x660d
        movk w22, #0x19, lsl #16
again:  mul w19, w19, w22
        add w19, w19, #3
        lsr w0, w19, #24
        tbz w0, #0, even
        bl odd
        b next
even:   str w0, [x20, x0, lsl #2]
        ldp x1, x2, [x20, #16]
        eor x3, x1, x2
        scvtf d0, w0
        fadd d1, d1, d0
1:      ldxr w4, [x20]
        add w4, w4, #1
        stxr w5, w4, [x20]
        cbnz w5, 1b
        subs w0, w0, #100
        b.lo next
        stp q0, q1, [x20, #64]
next:   add x21, x21, #1
        b again
odd:    csel w6, w0, w19, ne
        ret
"""


def oracle(code: bytes, arch: object, clock: int) -> dict[str, int]:
    """The state after exactly `clock` instructions, by an engine of its own with stock mappings."""
    if arch is X86_64:
        engine = Uc(UC_ARCH_X86, UC_MODE_64, cpu=x86_const.UC_CPU_X86_BROADWELL)
        names = ["RAX", "RCX", "RDX", "RSI", "RDI", "RSP", "R8", "R12", "RIP", "EFLAGS", "XMM1", "FPSW"]
        numbers = {name: getattr(x86_const, "UC_X86_REG_" + name) for name in names}
        engine.reg_write(x86_const.UC_X86_REG_CR4, 0x50620)
        engine.reg_write(x86_const.UC_X86_REG_MXCSR, 0x1F80)
        engine.reg_write(x86_const.UC_X86_REG_FPCW, 0x37F)
        engine.reg_write(x86_const.UC_X86_REG_FPTAG, 0xFFFF)
        engine.reg_write(x86_const.UC_X86_REG_EFLAGS, 0x202)
        engine.reg_write(x86_const.UC_X86_REG_RSP, STACK - 64)
    else:
        engine = Uc(UC_ARCH_ARM64, UC_MODE_ARM, cpu=arm64_const.UC_CPU_ARM64_MAX)
        names = ["X0", "X3", "X4", "X6", "X19", "X21", "X30", "PC", "Q1"]
        numbers = {name: getattr(arm64_const, "UC_ARM64_REG_" + name) for name in names}
        engine.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 0x300000)
    engine.mem_map(CODE, 0x4000)
    engine.mem_write(CODE, code)
    engine.mem_map(DATA, 0x4000)
    engine.mem_map(STACK - 0x10000, 0x10000)
    if clock:
        engine.emu_start(CODE, 0, count=clock)
    return {name: engine.reg_read(number) for name, number in numbers.items()}


def mine(m: Bare) -> dict[str, int]:
    if m.cpu.arch is X86_64:
        names = {n: n.lower() for n in ("RAX", "RCX", "RDX", "RSI", "RDI", "RSP", "R8", "R12", "RIP", "EFLAGS", "XMM1")}
        names["FPSW"] = "fstat"
    else:
        names = {n: n.lower() for n in ("X0", "X3", "X4", "X6", "X19", "X21", "X30", "PC")}
        names["Q1"] = "v1"
    return {uc: m.read(name) for uc, name in names.items()}


@pytest.mark.parametrize("seed", range(24))
def test_random_limits_and_points(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    arch, text = ((X86_64, X86_PROGRAM), (AARCH64, A64_PROGRAM))[seed % 2]
    code, at = assemble(tmp_path, text, arch)
    m = Bare(code, arch=arch, code_prot=rng.choice([5, 5, RWX]))
    places = [address for name, address in at.items() if CODE <= address < CODE + len(code)]
    total = rng.randrange(500, 20_000)
    points: set[int] = set()
    hits = 0
    while m.cpu.clock < total:
        if rng.random() < 0.3 and len(points) < 3:
            points.add(place := rng.choice(places))
            m.cpu.insert_breakpoint(m.table, place)
        if rng.random() < 0.3 and points:
            m.cpu.remove_breakpoint(m.table, place := rng.choice(sorted(points)))
            points.remove(place)
        watched = rng.random() < 0.1
        if watched:
            m.cpu.insert_watchpoint(m.table, DATA + 8 * rng.randrange(400), 8, WatchKind.WRITE)
        limit = min(total, m.cpu.clock + int(rng.expovariate(1 / 200)))
        pc, before = m.read(arch.pc), m.cpu.clock
        got = m.cpu.step() if rng.random() < 0.2 else m.cpu.run(limit, True)
        match got:
            case BreakpointHit(address):
                assert address == m.read(arch.pc)
                assert address in points
                hits += 1
            case Simple.BUDGET:
                assert m.cpu.clock in (limit, before + 1)
            case WatchHit():
                pass
            case _:
                pytest.fail(f"{got} at {pc:#x}")
        if watched:
            for n in range(400):
                m.cpu.remove_watchpoint(m.table, DATA + 8 * n, 8, WatchKind.WRITE)
        if rng.random() < 0.05:
            assert mine(m) == oracle(code, arch, m.cpu.clock)
    assert mine(m) == oracle(code, arch, m.cpu.clock)
    while m.cpu.clock < total + 50:
        m.cpu.step()
    assert mine(m) == oracle(code, arch, m.cpu.clock)


def test_two_runs_with_other_stops_are_the_same_run(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, X86_PROGRAM)
    whole = Bare(code)
    whole.cpu.run(30_000)
    cut = Bare(code)
    while cut.cpu.clock < 30_000:
        cut.cpu.run(min(30_000, cut.cpu.clock + 7))
    assert cut.cpu.read_file() == whole.cpu.read_file()
    assert cut.table.read(DATA, 0x4000) == whole.table.read(DATA, 0x4000)
    stepped = Bare(code)
    assert stepped.cpu.step(30_000) is Simple.BUDGET
    assert stepped.cpu.read_file() == whole.cpu.read_file()


def test_a_soft_limit_ends_with_its_block(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "again: add rax, 1; nop; nop; nop; jmp again")
    m = Bare(code)
    assert m.cpu.run(12, False, True) is Simple.BUDGET
    assert (m.cpu.clock, m.read("rip")) == (15, at["again"])
    assert m.cpu.run(15, False, True) is Simple.BUDGET
    assert m.cpu.clock == 15
    assert m.cpu.run(17) is Simple.BUDGET
    assert m.cpu.run(18, False, True) is Simple.BUDGET
    assert m.cpu.clock == 20
    m.cpu.insert_breakpoint(m.table, CODE + 4)
    assert m.cpu.run(21, False, True) is Simple.BUDGET
    assert m.cpu.clock == 21
    assert m.cpu.run(22, False, True) == BreakpointHit(CODE + 4)
