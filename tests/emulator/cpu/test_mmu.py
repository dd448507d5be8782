"""Page tables: what is mapped, shared, copied, given back; host files; the CPU and the kernel side see the same."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.cpu.exits import BusError, PageFault, Simple, Syscall
from emulator.cpu.mmu import HOOKS_KIND, PAGE, Arena, PageTable
from emulator.errors import LinuxError, MemoryFault
from tests.emulator.cpu.machine import CODE, DATA, FOREVER, RW, RX, Bare, assemble

A = 0x10_0000
TOP = 1 << 48


@pytest.fixture
def table() -> PageTable:
    return PageTable(Arena())


def fault(call: object, *args: object, **kwargs: object) -> tuple[int, Access, bool]:
    with pytest.raises(MemoryFault) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.address, caught.value.access, caught.value.mapped


def test_read_and_write_across_pages(table: PageTable) -> None:
    table.map_anonymous(A, 3 * PAGE, RW)
    data = bytes(range(256)) * 20
    table.write(A + 100, data)
    assert table.read(A + 100, len(data)) == data
    assert table.read(A, 100) == bytes(100)
    assert table.read(A, 0) == b""


def test_faults_name_the_first_bad_byte(table: PageTable) -> None:
    table.map_anonymous(A, PAGE, RW)
    table.map_anonymous(A + PAGE, PAGE, 1)
    table.map_anonymous(A + 2 * PAGE, PAGE, 0)
    assert fault(table.read, A - 1, 4) == (A - 1, Access.READ, False)
    assert fault(table.read, A + 2 * PAGE - 4, 8) == (A + 2 * PAGE, Access.READ, True)
    assert fault(table.write, A + PAGE - 4, b"12345678") == (A + PAGE, Access.WRITE, True)
    assert table.read(A + PAGE - 4, 4) == b"1234"
    assert table.read_partial(A + PAGE - 4, 1 << 40) == b"1234" + bytes(PAGE)
    assert table.read(A + 2 * PAGE, 4, force=True) == bytes(4)
    for address in (1 << 47, TOP - 1, TOP, 1 << 63, (1 << 64) - 1):
        assert fault(table.read, address, 1) == (address, Access.READ, False)
        assert fault(table.write, address, b"x", force=True) == (address, Access.WRITE, False)
        assert table.read_partial(address, 100) == b""
    assert fault(table.read, A, 1 << 62)[1:] == (Access.READ, False)
    assert fault(table.buffers, A, 2 * PAGE, Access.WRITE) == (A + PAGE, Access.WRITE, True)


def test_strings(table: PageTable) -> None:
    table.map_anonymous(A, PAGE, RW)
    table.write(A + PAGE - 4, b"ab\0x")
    assert table.read_cstring(A + PAGE - 4, 100) == b"ab"
    assert table.read_cstring(A, 100) == b""
    assert fault(table.read_cstring, A + PAGE - 1, 100) == (A + PAGE, Access.READ, False)
    with pytest.raises(ValueError, match="limit"):
        table.read_cstring(A + PAGE - 4, 2)


def test_fork_copies_on_write_both_ways(table: PageTable) -> None:
    table.map_anonymous(A, 4 * PAGE, RW)
    table.write(A, b"parent")
    shared = table.arena.shared_anonymous(1)
    table.map_frames(A + 8 * PAGE, PAGE, RW, shared, 0, shared=True, valid_pages=1)
    child = table.fork()
    used = table.arena.used_frames()
    child.write(A, b"child!")
    table.write(A + PAGE, b"mine")
    table.write(A + 8 * PAGE, b"ours")
    assert (table.read(A, 6), child.read(A, 6)) == (b"parent", b"child!")
    assert child.read(A + PAGE, 4) == bytes(4)
    assert child.read(A + 8 * PAGE, 4) == b"ours"
    assert table.arena.used_frames() == used + 2
    child.destroy()
    assert table.arena.used_frames() == used + 1
    table.write(A, b"again!")
    assert table.arena.used_frames() == used + 1
    table.destroy()
    assert table.arena.used_frames() == 0


def test_protect_unmap_discard_move(table: PageTable) -> None:
    table.map_anonymous(A, 8 * PAGE, RW)
    table.write(A, bytes(range(8)) * PAGE)
    table.protect(A + PAGE, PAGE, 1)
    assert fault(table.write, A + PAGE, b"x") == (A + PAGE, Access.WRITE, True)
    table.unmap(A + 2 * PAGE, PAGE)
    assert fault(table.read, A + 2 * PAGE, 1) == (A + 2 * PAGE, Access.READ, False)
    table.discard(A + 3 * PAGE, PAGE)
    assert table.read(A + 3 * PAGE, PAGE) == bytes(PAGE)
    assert table.resident(A, 8 * PAGE) == bytes([7, 7, 0, 1, 7, 7, 7, 7])
    table.move(A + PAGE, A + 64 * PAGE, 6 * PAGE)
    assert table.read(A + 64 * PAGE, 8) == bytes(range(8))
    assert fault(table.write, A + 64 * PAGE, b"x")[2]
    assert fault(table.read, A + 65 * PAGE, 1)[2] is False
    assert table.read(A + 67 * PAGE, 8) == bytes(range(8))
    assert fault(table.read, A + 4 * PAGE, 1)[2] is False
    with pytest.raises(ValueError, match="range"):
        table.unmap(A + 1, PAGE)
    for start, length in ((TOP, PAGE), (A, TOP), (A, 0), ((1 << 64) - PAGE, PAGE)):
        with pytest.raises(ValueError, match="range"):
            table.map_anonymous(start, length, RW)


def test_huge_mappings_cost_nothing(table: PageTable) -> None:
    table.map_anonymous(1 << 40, 1 << 46, RW)
    table.write((1 << 40) + (1 << 45), b"here")
    assert table.arena.used_frames() == 1
    table.unmap(1 << 40, 1 << 46)
    assert table.arena.used_frames() == 0


def test_the_arena_has_a_limit() -> None:
    table = PageTable(Arena(limit_frames=10))
    table.map_anonymous(A, 100 * PAGE, RW)
    table.read(A, 100 * PAGE)  # the zero page is nobody's
    table.write(A, bytes(10 * PAGE))
    with pytest.raises(LinuxError) as caught:
        table.write(A + 10 * PAGE, b"x")
    assert caught.value.errno is E.ENOMEM
    table.unmap(A, PAGE)
    table.write(A + 10 * PAGE, b"x")


def test_private_and_shared_file_mappings(tmp_path: Path, table: PageTable) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"A" * PAGE + b"B" * PAGE + b"C" * 100)
    with path.open("r+b") as file:
        frames = table.arena.map_file(file.fileno(), 0, 3, False, False)
        both = table.arena.map_file(file.fileno(), 0, 3, True, True)
    table.map_frames(A, 4 * PAGE, RW, frames, 0, shared=False, valid_pages=3)
    table.map_frames(A + 16 * PAGE, 2 * PAGE, RW, both, 1, shared=True, valid_pages=2)
    assert table.arena.used_frames() == 0
    assert table.read(A + PAGE - 1, 2) == b"AB"
    assert table.read(A + 2 * PAGE + 99, 2) == b"C\0"
    table.write(A, b"private")
    table.write(A + 16 * PAGE, b"shared")
    assert path.read_bytes()[: PAGE + 6] == b"A" * PAGE + b"shared"
    assert fault(table.read, A + 3 * PAGE, 1)[2]
    table.discard(A, 4 * PAGE)
    assert table.read(A, 7) == b"A" * 7
    table.protect(A + 16 * PAGE, PAGE, 1)
    assert fault(table.write, A + 16 * PAGE, b"x", force=True)[1] is Access.WRITE
    table.protect(A, PAGE, 1)
    table.write(A, b"debugger", force=True)
    assert table.read(A, 8) == b"debugger"
    assert path.read_bytes()[:8] == b"A" * 8
    with pytest.raises(OSError, match="Bad file"):
        table.arena.map_file(-1, 0, 1, True, True)


@pytest.mark.skipif(HOOKS_KIND != "c", reason="only C can catch the host's SIGBUS")
def test_a_truncated_file_is_a_bus_error_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"A" * (4 * PAGE))
    code, _ = assemble(tmp_path, f"mov eax, [{DATA * 2} + 4]; mov ebx, [{DATA * 2} + 8196]; nop; syscall")
    m = Bare(code)
    with path.open("r+b") as file:
        frames = m.arena.map_file(file.fileno(), 0, 4, True, True)
        m.table.map_frames(DATA * 2, 4 * PAGE, RW, frames, 0, shared=True, valid_pages=4)
        file.truncate(PAGE)
    got = m.cpu.run(FOREVER)
    assert got == BusError(DATA * 2 + 8192) or got == BusError(DATA * 2 + 8196)
    assert fault(m.table.read, DATA * 2 + 3 * PAGE, 8) == (DATA * 2 + 3 * PAGE, Access.READ, True)
    assert m.table.read(DATA * 2, 4) == b"AAAA"


def test_beyond_the_file_is_a_bus_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    code, _ = assemble(tmp_path, f"mov eax, [{DATA * 2} + 4100]; syscall")
    m = Bare(code)
    with path.open("rb") as file:
        frames = m.arena.map_file(file.fileno(), 0, 1, False, False)
    m.table.map_frames(DATA * 2, 2 * PAGE, RW, frames, 0, shared=False, valid_pages=1)
    assert m.cpu.run(FOREVER) == BusError(DATA * 2 + 4100)
    assert m.cpu.clock == 0


def test_buffers_are_the_memory_itself(table: PageTable) -> None:
    table.map_anonymous(A, 4 * PAGE, RW)
    table.write(A, bytes(4 * PAGE))
    views = table.buffers(A + 10, 2 * PAGE, Access.WRITE)
    assert sum(len(view) for view in views) == 2 * PAGE
    at = 10
    for view in views:
        view[0] = 77
        assert table.read(A + at, 1) == b"M"
        at += len(view)
    assert table.buffers(A, 0, Access.READ) == []
    assert table.buffers(A, 8, Access.READ)[0].readonly


def test_the_cpu_sees_every_change_of_its_table(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, f"1: mov eax, [{DATA}]; mov [{DATA} + 4], eax; syscall; jmp 1b")
    m = Bare(code)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    m.table.write(DATA, b"\1\0\0\0")
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("rax") == 1
    child = m.table.fork()
    m.table.write(DATA, b"\2\0\0\0")
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.table.read(DATA, 8) == b"\2\0\0\0\2\0\0\0"
    assert child.read(DATA, 8) == b"\1\0\0\0\1\0\0\0"
    m.cpu.activate(child)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("rax") == 1
    child.protect(DATA, PAGE, 1)
    assert m.cpu.run(FOREVER) == PageFault(DATA + 4, Access.WRITE, True)
    child.unmap(DATA, PAGE)
    m.cpu.write("rip", CODE)
    assert m.cpu.run(FOREVER) == PageFault(DATA, Access.READ, False)
    child.map_anonymous(DATA, PAGE, RW)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    child.unmap(CODE, PAGE)
    assert m.cpu.run(FOREVER) == PageFault(m.read("rip"), Access.FETCH, False)
    m.cpu.activate(m.table)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("rax") == 2


def test_one_frame_at_two_addresses_writable_here_executable_there(tmp_path: Path) -> None:
    code, _ = assemble(tmp_path, f"again: mov byte ptr [{DATA * 2} + 16], cl; call {CODE + PAGE}; loop again; syscall")
    function, _ = assemble(tmp_path, ".skip 15; mov eax, 1; add ebx, eax; ret")
    m = Bare(code)
    frames = m.arena.shared_anonymous(1)
    m.table.map_frames(DATA * 2, PAGE, RW, frames, 0, shared=True, valid_pages=1)
    m.table.map_frames(CODE + PAGE, PAGE, RX, frames, 0, shared=True, valid_pages=1)
    m.table.write(DATA * 2, b"\x90" * 15 + function[15:])
    m.cpu.write("rcx", 20)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("rbx") == sum(range(21))
    clock = m.cpu.clock
    m.cpu.write("rip", CODE)
    m.cpu.write("rcx", 20)
    while m.cpu.clock < 2 * clock - 1:
        m.cpu.run(min(m.cpu.clock + 9, 2 * clock - 1))
        m.cpu.step(3)
    assert m.read("rbx") == 2 * sum(range(21))


@pytest.mark.parametrize("text", ["1: jmp 1b", "mov rcx, -1; rep lodsb", "1: mov eax, [rbx]; jmp 1b"])
@pytest.mark.parametrize("stepping", [False, True])
def test_a_stop_request_is_honoured_within_ten_ms(tmp_path: Path, text: str, stepping: bool) -> None:
    code, _ = assemble(tmp_path, f"mov rsi, {DATA}; mov rbx, rsi; {text}")
    m = Bare(code)
    m.cpu.step(3)
    asked = 0.0

    def ask() -> None:
        nonlocal asked
        asked = time.perf_counter()
        m.cpu.request_stop()

    if "rep" in text:
        m.table.map_anonymous(DATA, 1 << 36, RW)
    timer = threading.Timer(0.05, ask)
    timer.start()
    got = m.cpu.step_range(0, FOREVER, FOREVER) if stepping else m.cpu.run(FOREVER)
    late = time.perf_counter() - asked
    timer.join()
    assert got is Simple.STOP_REQUESTED
    assert late < 0.2  # 10 ms on a quiet machine
    m.cpu.request_stop()
    assert m.cpu.run(FOREVER) is Simple.STOP_REQUESTED
    assert m.cpu.run(m.cpu.clock + 10) is Simple.BUDGET


@pytest.mark.skipif(HOOKS_KIND != "c", reason="the Python twin is slow")
def test_forking_a_touched_gibibyte_is_fast() -> None:
    table = PageTable(Arena())
    pages = 1 << 18
    table.map_anonymous(A, pages * PAGE, 3)
    for n in range(0, pages, 8):  # an eighth is enough to time
        table.write(A + n * PAGE, b"x")
    start = time.perf_counter()
    child = table.fork()
    took = time.perf_counter() - start
    assert child.read(A, 1) == b"x"
    assert took < 0.1
