"""What each ISA says of itself: numbering as gdb has it, descriptions that gdb parses, numbers of the headers."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.abi.errno import E
from emulator.abi.numbers import errno_numbers, syscall_names
from emulator.arch import AARCH64, ARCHES, X86_64, Arch, by_elf, by_name, xstate
from emulator.errors import LinuxError
from tests.emulator.arch.fakes import Registers

GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags"

arches = pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)


def test_gdb_numbers() -> None:
    names = [register.name for register in X86_64.registers]
    assert names[0:18] == [
        "rax",
        "rbx",
        "rcx",
        "rdx",
        "rsi",
        "rdi",
        "rbp",
        "rsp",
        "r8",
        "r9",
        "r10",
        "r11",
        "r12",
        "r13",
        "r14",
        "r15",
        "rip",
        "eflags",
    ]
    assert [names.index(n) for n in ("st0", "fctrl", "xmm0", "mxcsr", "orig_rax", "fs_base", "gs_base")] == [
        24, 32, 40, 56, 57, 58, 59,
    ]  # fmt: skip
    names = [register.name for register in AARCH64.registers]
    assert [names.index(n) for n in ("x0", "sp", "pc", "cpsr", "v0", "fpsr", "fpcr", "tpidr")] == [
        0, 31, 32, 33, 34, 66, 67, 68,
    ]  # fmt: skip


@arches
def test_descriptions_are_xml(arch: Arch) -> None:
    known = {"int", "int64", "int32", "code_ptr", "data_ptr", "i387_ext"}
    for feature in arch.features:
        root = ElementTree.fromstring(f"<feature>{feature.types}</feature>")
        ids = {child.attrib["id"] for child in root}
        assert {register.type for register in feature.registers} <= known | ids


@arches
@pytest.mark.skipif(not shutil.which("gdb-multiarch"), reason="no gdb-multiarch")
def test_gdb_accepts_the_description(arch: Arch, tmp_path: Path) -> None:
    body = "".join(
        f'<feature name="{feature.name}">{feature.types}'
        + "".join(
            f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"'
            + (f' group="{r.group}"' if r.group else "")
            + "/>"
            for r in feature.registers
        )
        + "</feature>"
        for feature in arch.features
    )
    text = f"<architecture>{arch.gdb_name}</architecture><osabi>GNU/Linux</osabi>{body}"
    file = tmp_path / "target.xml"
    file.write_text(f'<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>{text}</target>')
    commands = [f"set tdesc filename {file}", "maint print xml-tdesc", "show architecture"]
    run = subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", *(word for c in commands for word in ("-ex", c))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "warning" not in run.stderr.lower()
    assert f'"{arch.gdb_name}"' in run.stdout


@arches
def test_every_part_is_named_by_a_register(arch: Arch) -> None:
    names = set(arch.register)
    assert {arch.pc, arch.sp, arch.fp, arch.tls, *arch.convention.args, arch.convention.number} <= names
    assert set(arch.expedited) <= names
    for note in arch.notes.values():
        assert len(note.pack(Registers(arch))) == note.size


def test_lookup() -> None:
    assert by_elf(62, 2, 1) is X86_64
    assert by_elf(62, 1, 1) is None  # x32
    assert by_elf(183, 2, 2) is None
    assert by_name("aarch64") is AARCH64


def test_errno_numbers() -> None:
    numbers = errno_numbers()
    host = {name: number for number, name in errno.errorcode.items()}
    assert {e.name: n for e, n in numbers.items() if e.name in host}.items() <= host.items()
    assert set(E) == set(numbers)
    assert errno_numbers("mips")[E.EADDRINUSE] == 125
    assert errno_numbers("ppc")[E.EADDRINUSE] == 98


def test_syscall_numbers() -> None:
    assert X86_64.syscall_numbers["execve"] == 59
    assert AARCH64.syscall_numbers["execve"] == 221
    for isa, number in (("i386", 11), ("arm", 11), ("riscv64", 221), ("mips", 4011), ("mips64el", 5057), ("ppc", 11)):
        assert syscall_names(isa)[number] == "execve"


@arches
@given(seed=st.integers(0, 2**32))
def test_notes_round_trip(arch: Arch, seed: int) -> None:
    regs = Registers(arch, seed)
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        if name in arch.register:
            regs.write(name, 0x2B)
    for name in ("fs_base", "gs_base"):
        if name in arch.register:
            regs.write(name, seed)
    for note in arch.notes.values():
        data = note.pack(regs)
        if arch is X86_64 and note.size != 216:
            regs.write("mxcsr", regs.read("mxcsr") & 0xFFFF)
            data = note.pack(regs)
        note.unpack(data, regs)
        assert note.pack(regs) == data or arch is X86_64


def test_user_regs_struct_refuses() -> None:
    note = X86_64.notes["NT_PRSTATUS"]
    regs = Registers(X86_64)
    data = bytearray(note.pack(regs))
    struct.pack_into("<Q", data, 17 * 8, 0x10)  # cs
    with pytest.raises(LinuxError, match="EIO"):
        note.unpack(bytes(data), regs)


def test_x87_tags() -> None:
    one, zero, infinity, denormal = 0x3FFF << 64 | 1 << 63, 0, 0x7FFF << 64 | 1 << 63, 1
    stack = [one, zero, infinity, denormal, 0, 0, 0, 0]
    full = xstate.full_tag(0b0000_1111, 0, stack)
    assert full == 0xFF00 | 0b10_10_01_00
    assert xstate.abridged_tag(full) == 0b1111
    rotated = xstate.full_tag(0b1000_0000, 7, stack)  # st0 is physical 7
    assert rotated == 0x3FFF


def test_xsave_image() -> None:
    regs = Registers(X86_64, 3)
    for name in ("fiseg", "foseg", "fop", "fstat", "fctrl", "ftag"):
        regs.write(name, regs.arch.register[name].initial)
    regs.write("mxcsr", 0x1FA0)
    image = bytes(xstate.pack_xsave(regs))
    assert len(image) == 576
    assert xstate.xsave_is_valid(image)
    assert image[160:176] == regs.read("xmm0").to_bytes(16, "little")
    assert image[32:42] == regs.read("st0").to_bytes(10, "little")
    other = Registers(X86_64)
    xstate.unpack_xsave(image, other)
    assert bytes(xstate.pack_xsave(other)) == image
    xstate.unpack_xsave(image[:512] + struct.pack("<Q", 1) + image[520:], other)
    assert other.read("xmm0") == 0
    assert other.read("mxcsr") == 0x1F80
    assert not xstate.xsave_is_valid(image[:512] + b"\x04" + image[513:])
