"""Watchpoints: any length, any access, no false alarm reported, no real one missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.abi.memory import Access
from emulator.cpu.exits import PageFault, Simple, Syscall, WatchHit, WatchKind
from tests.emulator.cpu.machine import AARCH64, DATA, FOREVER, Bare, assemble

W, R, A = WatchKind.WRITE, WatchKind.READ, WatchKind.ACCESS


@pytest.mark.parametrize(
    ("insn", "start", "length", "kind", "address"),
    [
        ("mov [rbx], eax", 0, 4, W, 0),
        ("mov [rbx], eax", 3, 1, W, 3),
        ("mov [rbx], eax", 4, 4, W, None),
        ("mov [rbx], rax", 4, 4, W, 4),
        ("mov eax, [rbx]", 0, 4, W, None),
        ("mov eax, [rbx]", 0, 4, R, 0),
        ("mov [rbx], eax", 0, 4, R, None),
        ("mov [rbx], eax", 0, 4, A, 0),
        ("mov eax, [rbx]", 2, 1, A, 2),
        ("inc dword ptr [rbx]", 1, 2, W, 1),
        ("lock xadd [rbx], rcx", 7, 1, W, 7),
        ("lock cmpxchg16b [rbx]", 15, 1, W, 15),
        ("movaps [rbx], xmm0", 12, 1, W, 12),
        ("movups [rbx + 5], xmm0", 20, 1, W, 20),
        ("movups [rbx + 5], xmm0", 21, 1, W, None),
        ("fxsave [rbx]", 400, 8, W, 400),
        ("fstp tbyte ptr [rbx]", 9, 1, W, 9),
        ("mov [rbx + 4093], rax", 4096, 1, W, 4096),
        ("mov [rbx + 4093], rax", 0, 8192, W, 4093),
        ("push rax", 0, 8, W, None),
        ("movsq", 2, 1, W, None),
        ("movsq", 66, 1, R, 66),
        ("movsq", 130, 1, W, 130),
        ("stosb", 128, 1, W, 128),
        ("push [rbx]", 1, 1, R, 1),
        ("call [rbx]", 1, 1, R, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stepped", [False, True])
def test_overlap(
    tmp_path: Path, insn: str, start: int, length: int, kind: WatchKind, address: int | None, stepped: bool
) -> None:
    code, at = assemble(
        tmp_path,
        f"lea rsi, [rbx + 64]; lea rdi, [rbx + 128]; xor eax, eax; before: {insn}; behind: nop; syscall",
    )
    m = Bare(code)
    m.cpu.write("rbx", DATA)
    m.table.write(DATA, at["behind"].to_bytes(8, "little"))
    m.cpu.insert_watchpoint(m.table, DATA + start, length, kind)
    got = [m.cpu.step() for _ in range(4)][-1] if stepped else m.cpu.run(FOREVER)
    if address is None:
        assert got is Simple.BUDGET if stepped else isinstance(got, Syscall)
    else:
        assert got == WatchHit(DATA + address, kind)
        assert (m.read("rip"), m.cpu.clock) == (at["behind"], 4)
    if not stepped or address is None:
        while not isinstance(got, Syscall):
            got = m.cpu.run(FOREVER)
        assert m.cpu.clock == 6


def test_every_iteration_of_a_loop_hits_once(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "mov ecx, 50; 1: mov [rbx + rcx * 4], ecx; add [rbx], ecx; dec ecx; jnz 1b; syscall")
    m = Bare(code)
    m.cpu.write("rbx", DATA)
    m.cpu.insert_watchpoint(m.table, DATA, 4, W)
    hits = 0
    while not isinstance(got := m.cpu.run(FOREVER), Syscall):
        assert got == WatchHit(DATA, W)
        hits += 1
        assert m.cpu.clock == 3 + 4 * (hits - 1)
    assert hits == 50
    assert m.cpu.clock == 202


def test_rep_stos_over_a_watched_byte(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, f"mov rdi, {DATA}; mov ecx, 8192; rep stosb; syscall")
    m = Bare(code)
    m.cpu.insert_watchpoint(m.table, DATA + 5000, 1, W)
    assert m.cpu.run(FOREVER) == WatchHit(DATA + 5000, W)
    assert m.read("rdi") == DATA + 5001
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    plain = Bare(code)
    plain.cpu.run(FOREVER)
    assert plain.cpu.clock == m.cpu.clock


def test_many_watchpoints_and_removal(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, "mov ecx, 1000; 1: mov [rbx + rcx * 8], rcx; dec ecx; jnz 1b; syscall")
    m = Bare(code)
    m.cpu.write("rbx", DATA)
    for n in range(100):
        m.cpu.insert_watchpoint(m.table, DATA + 8 * (10 * n + 1), 3, W)
    hits = 0
    while not isinstance(m.cpu.run(FOREVER), Syscall):
        hits += 1
    assert hits == 100
    m = Bare(code)
    m.cpu.write("rbx", DATA)
    m.cpu.insert_watchpoint(m.table, DATA, 4096, W)
    m.cpu.insert_watchpoint(m.table, DATA, 4096, W)
    m.cpu.remove_watchpoint(m.table, DATA, 4096, W)
    assert isinstance(m.cpu.run(FOREVER), WatchHit)
    m.cpu.remove_watchpoint(m.table, DATA, 4096, W)
    assert isinstance(m.cpu.run(FOREVER), Syscall)


def test_kernel_stores_are_recorded() -> None:
    m = Bare(b"\x90")
    m.cpu.insert_watchpoint(m.table, DATA + 10, 4, W)
    m.table.write(DATA, b"x" * 10)
    assert m.cpu.take_kernel_hits() == []
    m.table.write(DATA, b"x" * 11)
    m.table.write(DATA + 12, b"debugger", force=True)
    assert m.cpu.take_kernel_hits() == [WatchHit(DATA + 10, W)]
    assert m.cpu.take_kernel_hits() == []


def test_aarch64_reports_before_the_access(tmp_path: Path) -> None:
    code, at = assemble(tmp_path, "mov x1, #5; before: stp x1, x1, [x0]; ldr x2, [x0, #8]; svc #0", AARCH64)
    m = Bare(code, arch=AARCH64)
    m.cpu.write("x0", DATA)
    m.cpu.insert_watchpoint(m.table, DATA + 8, 8, W)
    assert m.cpu.run(FOREVER) == WatchHit(DATA + 8, W)
    assert (m.read("pc"), m.cpu.clock) == (at["before"], 1)
    assert m.table.read(DATA, 16) == bytes(16)
    m.cpu.remove_watchpoint(m.table, DATA + 8, 8, W)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert (m.read("x2"), m.cpu.clock) == (5, 4)


def test_a_fault_after_a_hit_is_a_fault_and_the_hit_comes_again(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, f"mov esi, {DATA}; mov edi, 0x9000; movsb; syscall")
    m = Bare(code)
    m.cpu.insert_watchpoint(m.table, DATA, 1, R)
    assert m.cpu.run(FOREVER) == PageFault(0x9000, Access.WRITE, False)
    m.table.map_anonymous(0x9000, 0x1000, 3)
    assert m.cpu.run(FOREVER) == WatchHit(DATA, R)
    assert m.cpu.clock == 3


def test_more_watched_pages_than_are_followed_at_once(tmp_path: Path) -> None:
    text = f"mov ecx, 200; mov ebx, {DATA}; 1: mov [rbx], ecx; add ebx, 4096; dec ecx; jnz 1b; syscall"
    code, _ = assemble(tmp_path, text)
    m = Bare(code, data_pages=200)
    for n in range(200):
        m.cpu.insert_watchpoint(m.table, DATA + 4096 * n + (0 if n in (100, 190) else 64), 1, W)
    assert m.cpu.run(FOREVER) == WatchHit(DATA + 4096 * 100, W)
    assert m.cpu.run(FOREVER) == WatchHit(DATA + 4096 * 190, W)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
