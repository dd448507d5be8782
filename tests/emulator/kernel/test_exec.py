"""execve(2): the image as the host kernel lays it, its errors in the kernel's order, hostile files."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.abi.auxv import At
from emulator.abi.errno import E
from emulator.arch import AARCH64, X86_64, Arch
from emulator.cpu.engine import Cpu
from emulator.cpu.exits import Syscall
from emulator.cpu.mmu import Arena
from emulator.errors import LinuxError
from emulator.kernel import exec as execve
from emulator.kernel.credentials import Credentials
from emulator.kernel.fd_table import FdTable
from emulator.kernel.host import Host
from emulator.kernel.image import FatalExec
from emulator.kernel.kernel import Config, Kernel
from emulator.kernel.signals import SigHand
from emulator.kernel.tasks import Task, TaskUid
from emulator.kernel.thread_group import Session, ThreadGroup

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
needs_cross = pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="no cross compiler")
MAPS = '#include <stdio.h>\nint main(void) { char b[512]; FILE *f = fopen("/proc/self/maps", "r");' + (
    " while (fgets(b, sizeof b, f)) fputs(b, stdout); return 0; }\n"
)


def new_task(arch: Arch = X86_64, sysroot: str = "") -> Task:
    """A task without an image, on a machine of its own."""
    arena = Arena()
    kernel = Kernel(arch, Config(), Host(), Cpu(arch, arena), arena)
    kernel.vfs.walker.sysroot = sysroot.encode()
    group = ThreadGroup(1000, None, 1000, Session(1000), SigHand())
    nothing: object = None
    return Task(
        TaskUid(1000, 1),
        group,
        kernel,
        arch,
        nothing,  # type: ignore[arg-type]
        nothing,  # type: ignore[arg-type]
        FdTable(),
        kernel.vfs.initial_state(),
        Credentials.of(0, 0),
    )


@pytest.fixture(scope="module")
def task() -> Task:
    """One that is used again and again: execve replaces everything."""
    return new_task()


def run_exec(task: Task, path: Path | str, *argv: str) -> None:
    words = [str(path).encode(), *(word.encode() for word in argv)]
    program = execve.prepare(task, str(path).encode(), lambda: (words, [b"A=1"]))
    execve.enter(task, program, task.kernel.cpu)


def compiled(tmp_path: Path, *flags: str, compiler: str = "gcc", source: str = MAPS) -> Path:
    file = tmp_path / "p.c"
    file.write_text(source)
    program = tmp_path / "p"
    subprocess.run([compiler, *flags, "-o", program, file], check=True)
    return program


def mappings(text: str, name: str) -> list[tuple[str, str]]:
    """(address range, permissions) of the mappings of one file."""
    return [(m[1], m[2]) for m in re.finditer(r"^(\S+) (\S+) .*? " + re.escape(name) + "$", text, re.M)]


def merged(rows: list[tuple[str, str]]) -> tuple[str, str]:
    return rows[0][0].split("-")[0], rows[-1][0].split("-")[1]


@needs_gcc
@pytest.mark.parametrize("flags", [["-static"], ["-static-pie"], ["-no-pie"], []], ids=lambda flags: " ".join(flags))
def test_placement_is_the_host_kernels(task: Task, tmp_path: Path, flags: list[str]) -> None:
    program = compiled(tmp_path, *flags)
    native = subprocess.run(["setarch", "-R", program], capture_output=True, text=True, check=False)
    if native.returncode:
        pytest.skip("setarch -R is not allowed here")
    run_exec(task, program)
    ours = task.space.maps_text()
    loader = str(Path("/lib64/ld-linux-x86-64.so.2").resolve())
    for name in (str(program), loader) if "-static" not in "".join(flags) else (str(program),):
        theirs = mappings(native.stdout, name)
        if "-static" in flags:  # the program itself makes its bss and relocation pages
            assert merged(mappings(ours, name))[0] == merged(theirs)[0]
        else:
            assert merged(mappings(ours, name)) == merged(theirs)
    assert mappings(ours, "[stack]") == mappings(native.stdout, "[stack]")
    heap = mappings(native.stdout, "[heap]")
    assert f"{task.space.start_brk:x}" == heap[0][0].split("-")[0].lstrip("0")


@needs_gcc
@pytest.mark.parametrize("flags", [["-static"], ["-static-pie"], []], ids=lambda flags: " ".join(flags))
def test_it_starts(task: Task, tmp_path: Path, flags: list[str]) -> None:
    run_exec(task, compiled(tmp_path, *flags))
    cpu = task.kernel.cpu
    stop = cpu.run(cpu.clock + 1_000_000)
    assert isinstance(stop, Syscall)
    assert X86_64.syscalls[stop.number] == "brk"
    assert task.name == "p"


@needs_cross
@pytest.mark.parametrize("flags", [["-static"], ["-static-pie"], []], ids=lambda flags: " ".join(flags))
def test_a_foreign_program_starts(tmp_path: Path, flags: list[str]) -> None:
    task = new_task(AARCH64, sysroot="/usr/aarch64-linux-gnu")
    run_exec(task, compiled(tmp_path, *flags, compiler="aarch64-linux-gnu-gcc"))
    cpu = task.kernel.cpu
    stop = cpu.run(cpu.clock + 1_000_000)
    assert isinstance(stop, Syscall)
    assert AARCH64.syscalls[stop.number] == "brk"
    assert task.space.signal_trampoline
    assert task.memory.read(task.space.signal_trampoline + 4, 8) == bytes.fromhex("681180d2010000d4")


@needs_gcc
def test_auxv(task: Task, tmp_path: Path) -> None:
    run_exec(task, compiled(tmp_path), "one")
    pairs = dict(struct.iter_unpack("<QQ", task.space.auxv))
    assert task.memory.read_cstring(pairs[At.EXECFN]) == str(tmp_path / "p").encode()
    assert pairs[At.PHDR] == 0x555555554040
    assert pairs[At.BASE] > 0x7FFFF7000000
    arguments = task.memory.read(task.space.arg_start, task.space.arg_end - task.space.arg_start)
    assert arguments == str(tmp_path / "p").encode() + b"\0one\0"
    assert task.memory.read_u64(task.kernel.cpu.read("rsp")) == 2


def script(path: Path, line: str) -> Path:
    path.write_text(line)
    path.chmod(0o755)
    return path


def failure(task: Task, path: Path | str) -> tuple[E, str]:
    with pytest.raises(LinuxError) as caught:
        run_exec(task, path)
    return caught.value.errno, execve.describe(str(path), caught.value)


def test_errors(task: Task, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("echo\n")
    assert failure(task, plain)[0] is E.EACCES
    assert failure(task, tmp_path)[0] is E.EACCES
    assert failure(task, "/dev/null")[0] is E.EACCES
    assert failure(task, tmp_path / "none")[0] is E.ENOENT
    assert failure(task, plain / "below")[0] is E.ENOTDIR
    assert failure(task, "")[0] is E.ENOENT
    assert failure(task, "/" + "a" * 300)[0] is E.ENAMETOOLONG
    assert failure(task, "/" + "a/" * 3000)[0] is E.ENAMETOOLONG
    link = tmp_path / "link"
    link.symlink_to(link)
    assert failure(task, link)[0] is E.ELOOP
    plain.chmod(0o755)
    assert failure(task, plain)[0] is E.ENOEXEC
    with plain.open("a"):
        errno, sentence = failure(task, plain)
        assert errno is E.ETXTBSY
        assert "writing" in sentence
    empty = script(tmp_path / "empty", "")
    assert failure(task, empty) == (E.ENOEXEC, f"{empty}: ENOEXEC: it is empty")


def test_scripts(task: Task, tmp_path: Path) -> None:
    first = script(tmp_path / "first", "#!/bin/true -x\n")
    run_exec(task, first, "a")
    assert task.group.argv == (b"/bin/true", b"-x", str(first).encode(), b"a")
    assert task.name == "first"
    assert task.group.exe == str(Path("/bin/true").resolve())
    previous = first
    for number in range(4):  # five scripts in all
        previous = script(tmp_path / f"s{number}", f"#!{previous}\n")
    run_exec(task, previous)
    previous = script(tmp_path / "too-deep", f"#!{previous}\n")
    assert failure(task, previous)[0] is E.ELOOP
    lost = script(tmp_path / "lost", "#!/no/where\n")
    errno, sentence = failure(task, lost)
    assert errno is E.ENOENT
    assert "/no/where" in sentence


@needs_gcc
def test_interpreter_errors(task: Task, tmp_path: Path) -> None:
    good = compiled(tmp_path).read_bytes()

    def with_interpreter(text: bytes) -> Path:
        old = b"/lib64/ld-linux-x86-64.so.2\0"
        return script_bytes(tmp_path / "patched", good.replace(old, text.ljust(len(old), b"\0"), 1))

    assert failure(task, with_interpreter(b"/lib64/ld-linux-x86-64.so.9"))[0] is E.ENOENT
    assert failure(task, with_interpreter(b"/etc/passwd"))[0] is E.EACCES
    text = script(Path("/tmp") / "emugdb-itp", "x" * 100)  # short enough for the patch
    try:
        assert failure(task, with_interpreter(bytes(text)))[0] is E.ELIBBAD
        text.write_text("x")
        assert failure(task, with_interpreter(bytes(text)))[0] is E.EIO
    finally:
        text.unlink()


def script_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o755)
    return path


TRUE = Path("/bin/true").read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.one_of(st.integers(0, 63), st.integers(64, 64 + 56 * 13), st.integers(0, len(TRUE) - 1)),
    new=st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 4])),
    cut=st.one_of(st.none(), st.integers(0, len(TRUE))),
)
def test_corrupt_files(task: Task, tmp_path: Path, at: int, new: bytes, cut: int | None) -> None:
    file = script_bytes(tmp_path / "corrupt", (TRUE[:at] + new + TRUE[at + len(new) :])[:cut])
    try:
        run_exec(task, file)
    except LinuxError as error:
        assert error.errno in (
            E.ENOEXEC,
            E.EIO,
            E.ENOENT,
            E.EACCES,
            E.ELIBBAD,
            E.EINVAL,
            E.ENOTDIR,
            E.ENAMETOOLONG,
            E.ELOOP,
        )
    except FatalExec:
        pass
    else:
        cpu = task.kernel.cpu
        cpu.run(cpu.clock + 20_000)
    assert task.kernel.arena.used_frames() < 20_000
