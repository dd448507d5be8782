"""Address spaces: the host kernel is the oracle for split, merge and errno."""

from __future__ import annotations

import ctypes
import errno
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.abi.mman import Map, Mremap
from emulator.cpu.mmu import Arena
from emulator.errors import LinuxError
from emulator.kernel.address_space import AddressSpace, FaultCode, Layout
from emulator.kernel.vma import VmFlag

TASK_SIZE = 0x7FFFFFFFF000
BASE = 0x200000000000  # nobody's, in this process and in the emulated one
PAGES = 24
ANON = int(Map.PRIVATE | Map.ANONYMOUS)


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace(Arena(None), Layout.linux(TASK_SIZE))


def ranges(text: str) -> list[str]:
    """Address range and letters of the lines in the region."""
    found = []
    for line in text.splitlines():
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        if start >= BASE and end <= BASE + PAGES * PAGE_SIZE:
            found.append(f"{start - BASE:x}-{end - BASE:x} {line.split()[1]}")
    return found


# ------------------------------------------------------------------------------------------- the host as the oracle

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]

pages = st.integers(0, PAGES - 1)
lengths = st.integers(0, 6)
prots = st.sampled_from([0, 1, 3, 5])
operation = st.one_of(
    st.tuples(st.just("mmap"), pages, lengths, prots, st.sampled_from([0, int(Map.NORESERVE)])),
    st.tuples(st.just("munmap"), pages, lengths),
    st.tuples(st.just("mprotect"), pages, lengths, prots),
    st.tuples(st.just("mremap"), pages, lengths, lengths),  # in place: what FIXED accepts differs between kernels
)


def clip(page: int, count: int) -> int:
    return min(count, PAGES - page)


def on_host(op: tuple[int | str, ...]) -> str:
    match op:
        case ("mmap", int(page), int(n), int(prot), int(extra)):
            flags = ANON | Map.FIXED | extra
            result = libc.mmap(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE, prot, flags, -1, 0)
        case ("munmap", int(page), int(n)):
            result = libc.munmap(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE)
        case ("mprotect", int(page), int(n), int(prot)):
            result = libc.mprotect(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE, prot)
        case ("mremap", int(page), int(old), int(new)):
            sizes = (clip(page, old) * PAGE_SIZE, clip(page, new) * PAGE_SIZE)
            result = libc.mremap(BASE + page * PAGE_SIZE, *sizes, 0, None)
        case _:
            raise AssertionError(op)
    if result in (-1, None, 2**64 - 1):
        return errno.errorcode[ctypes.get_errno()]
    return "ok"


def emulated(space: AddressSpace, op: tuple[int | str, ...]) -> str:
    try:
        match op:
            case ("mmap", int(page), int(n), int(prot), int(extra)):
                space.mmap(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE, prot, ANON | Map.FIXED | extra)
            case ("munmap", int(page), int(n)):
                space.munmap(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE)
            case ("mprotect", int(page), int(n), int(prot)):
                space.mprotect(BASE + page * PAGE_SIZE, clip(page, n) * PAGE_SIZE, prot)
            case ("mremap", int(page), int(old), int(new)):
                sizes = (clip(page, old) * PAGE_SIZE, clip(page, new) * PAGE_SIZE)
                space.mremap(BASE + page * PAGE_SIZE, *sizes, 0, 0)
    except LinuxError as error:
        return error.errno.name
    return "ok"


@settings(max_examples=150, deadline=None)
@given(st.lists(operation, max_size=14))
def test_splits_merges_and_errnos_are_the_host_kernels(operations: list[tuple[int | str, ...]]) -> None:
    space = AddressSpace(Arena(None), Layout.linux(TASK_SIZE))
    libc.munmap(BASE, PAGES * PAGE_SIZE)
    try:
        for op in operations:
            assert emulated(space, op) == on_host(op), op
        with open("/proc/self/maps") as file:
            assert ranges(space.maps_text()) == ranges(file.read())
    finally:
        libc.munmap(BASE, PAGES * PAGE_SIZE)
        space.release()


# ---------------------------------------------------------------------------------------------------------- layout


def test_layout_without_aslr_is_the_one_everybody_knows() -> None:
    layout = Layout.linux(TASK_SIZE)
    assert layout.mmap_base == 0x7FFFF7FFF000
    assert layout.pie_base == 0x555555554000
    assert layout.stack_top == TASK_SIZE
    assert Layout.linux(1 << 48).pie_base == 0xAAAAAAAAA000
    assert Layout.linux(TASK_SIZE, rng=Random(1)) != Layout.linux(TASK_SIZE, rng=Random(2))


def test_top_down_and_hints(space: AddressSpace) -> None:
    first = space.mmap(0, 0x3000, 3, ANON)
    assert first == 0x7FFFF7FFC000
    assert space.mmap(0, 0x1000, 1, ANON) == first - 0x1000
    assert space.mmap(0x10000000, 0x1000, 3, ANON) == 0x10000000
    assert space.mmap(0x10000000, 0x1000, 3, ANON) == first - 0x2000  # taken
    assert space.mmap(0, 0x1000, 3, ANON | Map.BITS_32) == 0x40000000
    with pytest.raises(LinuxError) as raised:
        space.mremap(first, 0, 0x1000, int(Mremap.MAYMOVE | Mremap.FIXED), 0x30000)  # private: nothing to duplicate
    assert raised.value.errno is E.EINVAL
    with pytest.raises(LinuxError) as raised:
        space.mmap(first, 0x1000, 3, ANON | Map.FIXED_NOREPLACE)
    assert raised.value.errno is E.EEXIST


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, 3, ANON), E.EINVAL),
        ((0, 1 << 63, 3, ANON), E.ENOMEM),
        ((0x1234, 4096, 3, ANON | Map.FIXED), E.EINVAL),
        ((0, 4096, 3, int(Map.ANONYMOUS)), E.EINVAL),
        ((0, 4096, 3, int(Map.SHARED | Map.ANONYMOUS | Map.GROWSDOWN)), E.EINVAL),
        ((TASK_SIZE, 4096, 3, ANON | Map.FIXED), E.ENOMEM),
    ],
)
def test_mmap_refuses(space: AddressSpace, arguments: tuple[int, int, int, int], expected: E) -> None:
    with pytest.raises(LinuxError) as raised:
        space.mmap(*arguments)
    assert raised.value.errno is expected


def test_limits() -> None:
    limits = {"AS": 0x4000, "DATA": 0x2000, "STACK": 8 << 20, "MEMLOCK": 0}
    space = AddressSpace(Arena(None), Layout.linux(TASK_SIZE), rlimit=limits.__getitem__)
    space.mmap(0, 0x2000, 3, ANON)
    for length, prot in ((0x1000, 3), (0x3000, 1)):
        with pytest.raises(LinuxError) as raised:
            space.mmap(0, length, prot, ANON)
        assert raised.value.errno is E.ENOMEM
    with pytest.raises(LinuxError) as raised:
        space.mmap(0, 0x1000, 1, ANON | Map.LOCKED)
    assert raised.value.errno is E.EPERM


# ------------------------------------------------------------------------------------------------- heap, stack, move


def test_brk(space: AddressSpace) -> None:
    space.set_brk_start(0x555555558123)
    start = space.start_brk
    assert start == 0x555555559000
    assert space.brk(0) == start
    assert space.brk(start + 0x21000) == start + 0x21000
    assert "[heap]" in space.maps_text()
    assert space.brk(start + 0x1001) == start + 0x1001
    assert space.vmas.at(start + 0x2000) is None
    assert space.brk(TASK_SIZE + 1) == start + 0x1001  # refused: the old break is the answer


def test_the_stack_grows_down_to_its_limit_and_keeps_its_distance(space: AddressSpace) -> None:
    top = space.layout.stack_top
    space.add_stack(top - 0x21000, top)
    assert space.handle_fault(top - 0x22000, Access.WRITE) is None
    assert re.search(r"^7ffffffdd000-7ffffffff000 rw-p .*\[stack\]$", space.maps_text(), re.M)
    space.table.write(top - 0x22000, b"deep")
    limited = AddressSpace(Arena(None), Layout.linux(TASK_SIZE), rlimit=lambda name: 1 << 20)
    limited.add_stack(top - 0x21000, top)
    assert limited.handle_fault(top - 0x200000, Access.WRITE) is FaultCode.MAPERR
    space.mmap(top - 0x100000, 0x1000, 3, ANON | Map.FIXED)
    assert space.handle_fault(top - 0xF0000, Access.WRITE) is FaultCode.MAPERR  # inside the guard gap


def test_faults(space: AddressSpace) -> None:
    address = space.mmap(0, 0x1000, 1, ANON)
    assert space.handle_fault(address, Access.WRITE) is FaultCode.ACCERR
    assert space.handle_fault(address, Access.FETCH) is FaultCode.ACCERR
    assert space.handle_fault(0x1000, Access.READ) is FaultCode.MAPERR


def test_mremap_takes_the_contents_along(space: AddressSpace) -> None:
    space.mmap(0, 0x1000, 1, ANON)
    address = space.mmap(0, 0x2000, 3, ANON)
    space.table.write(address + 0x1000, b"hello")
    moved = space.mremap(address, 0x2000, 0x9000, int(Mremap.MAYMOVE), 0)
    assert moved != address
    assert space.table.read(moved + 0x1000, 6) == b"hello\0"
    assert space.vmas.at(address) is None
    kept = space.mremap(moved, 0x9000, 0x9000, int(Mremap.MAYMOVE | Mremap.DONTUNMAP), 0)
    assert space.table.read(kept + 0x1000, 5) == b"hello"
    assert space.table.read(moved + 0x1000, 5) == bytes(5)


def test_fork_copies_on_write(space: AddressSpace) -> None:
    private = space.mmap(0, 0x1000, 3, ANON)
    shared = space.mmap(0, 0x1000, 3, int(Map.SHARED | Map.ANONYMOUS))
    hidden = space.mmap(0, 0x1000, 3, ANON)
    space.set_flags(hidden, hidden + 0x1000, add=VmFlag.DONTCOPY)
    space.table.write(private, b"old")
    child = space.fork()
    child.table.write(private, b"new")
    child.table.write(shared, b"both")
    assert space.table.read(private, 3) == b"old"
    assert space.table.read(shared, 4) == b"both"
    assert child.vmas.at(hidden) is None
    assert child.shared_key(shared + 8) == space.shared_key(shared + 8)
    assert space.shared_key(private) is None


def test_maps_text_has_the_kernels_shape(space: AddressSpace) -> None:
    space.mmap(0x10000, 0x1000, 5, ANON | Map.FIXED)
    space.mmap(0x20000, 0x1000, 3, int(Map.SHARED | Map.ANONYMOUS | Map.FIXED))
    private, shared = space.maps_text().splitlines(keepends=True)
    assert private == "00010000-00011000 r-xp 00000000 00:00 0 \n"
    assert re.fullmatch(r"00020000-00021000 rw-s 00000000 00:01 \d+ +/dev/zero \(deleted\)\n", shared)
    assert shared.index("/dev/zero") == 73
    with open("/proc/self/smaps") as file:
        host = [
            line.split(":")[0] for line in file.read().split("\n")[1:] if ":" in line and "-" not in line.split()[0]
        ]
    ours = [line.split(":")[0] for line in space.maps_text(smaps=True).split("\n")[1:] if ":" in line]
    known = set(ours)
    first = host[: host.index("VmFlags") + 1]
    assert [name for name in first if name in known] == [
        name for name in ours[: ours.index("VmFlags") + 1] if name in first
    ]


def test_names(space: AddressSpace) -> None:
    address = space.mmap(0, 0x3000, 3, ANON)
    assert space.set_name(address + 0x1000, address + 0x2000, "arena")
    assert [line.rpartition(" ")[2] for line in space.maps_text().splitlines()] == ["", "[anon:arena]", ""]
