"""ELF headers: real programs parse; a corrupt one at any offset is an errno, never another exception."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.abi.errno import E
from emulator.arch import AARCH64, X86_64
from emulator.loader import elf
from emulator.loader.elf import BINPRM_BUF_SIZE, Elf, LoadError

HOST_PROGRAM = Path("/bin/true")


def load(data: bytes, *, interpreter: bool = False) -> Elf:
    """Parse a file given as bytes."""
    return elf.parse(data[:BINPRM_BUF_SIZE], lambda offset, size: data[offset : offset + size], interpreter=interpreter)


def interp(data: bytes) -> bytes | None:
    return elf.interpreter_path(load(data), lambda offset, size: data[offset : offset + size])


@pytest.fixture(scope="module")
def program() -> bytes:
    return HOST_PROGRAM.read_bytes()


def test_a_dynamic_program(program: bytes) -> None:
    image = load(program)
    assert image.arch is X86_64
    assert image.position_independent
    assert interp(program) == b"/lib64/ld-linux-x86-64.so.2"
    assert not image.executable_stack
    assert image.phdr_address == 0x40
    assert len(image.loads) >= 2
    assert image.total_size > 0


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no cross compiler")
def test_a_foreign_program(tmp_path: Path) -> None:
    source = tmp_path / "p.c"
    source.write_text("int main(void) { return 0; }")
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-o", tmp_path / "p", source], check=True)
    image = load((tmp_path / "p").read_bytes())
    assert image.arch is AARCH64
    assert not image.position_independent


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("at", "new", "says"),
    [
        (0, b"\x7fELG", "not an ELF"),
        (4, b"\x07", "corrupt"),
        (5, b"\x00", "corrupt"),
        (16, b"\x01\x00", "object file"),
        (16, b"\x04\x00", "core dump"),
        (18, b"\x16\x00", "S/390"),
        (54, b"\x20\x00", "program headers of 32 bytes"),
        (56, b"\x00\x00", "no program headers"),
        (56, b"\xff\xff", "too many"),
        (32, b"\xff\xff\xff\xff\x00\x00\x00\x00", "truncated"),
    ],
)
def test_what_is_refused(program: bytes, at: int, new: bytes, says: str) -> None:
    broken = patched(program, at, new)
    with pytest.raises(LoadError, match=says) as caught:
        load(broken)
    assert caught.value.errno is E.ENOEXEC
    with pytest.raises(LoadError) as caught:
        load(broken, interpreter=True)
    assert caught.value.errno is E.ELIBBAD


def test_every_truncation(program: bytes) -> None:
    for size in (0, 1, 3, 4, 15, 16, 17, 52, 63, 64, 65, 200, 500):
        with pytest.raises(LoadError):
            load(program[:size])


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 1100), new=st.binary(min_size=1, max_size=16))
def test_corruption_is_an_errno(at: int, new: bytes) -> None:
    data = HOST_PROGRAM.read_bytes()[:4096]
    broken = patched(data, at, new)
    try:
        image = load(broken)
        elf.interpreter_path(image, lambda offset, size: broken[offset : offset + size])
    except LoadError as error:
        assert error.errno in (E.ENOEXEC, E.EIO)
        assert error.why
    else:
        assert image.alignment >= 4096
        assert image.alignment & image.alignment - 1 == 0
        assert 0 <= image.total_size < 1 << 64  # 0: execve(2) kills the process (total_mapping_size)
