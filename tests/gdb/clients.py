"""Real debuggers against real servers: the same script on gdbserver, on qemu and on emugdb.

Rule: what differs for a reason that is none of ours is normalised here, in one place, each with its reason; everything
else must be the same text.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.native.harness import BUILD, ROOT, locked

PROGRAMS = Path(__file__).resolve().parent / "programs"
WAIT_S = 60.0
# name -> source, compiler and flags; five programs, five ways to link
SUBJECTS = {
    "numbers": ("numbers.c", ("gcc", "-g", "-O0", "-pie", "-fPIE"), ("-lm",)),
    "lists": ("lists.c", ("gcc", "-g", "-O0", "-no-pie", "-fno-pie"), ()),
    "handlers": ("handlers.c", ("gcc", "-g", "-O0", "-static"), ()),
    "files": ("files.c", ("gcc", "-g", "-O0", "-static-pie", "-fPIE"), ()),
    "objects": ("objects.cc", ("g++", "-g", "-O0"), ()),
}
# For tests of their own
OTHERS = {
    "spinner": ("spinner.c", ("gcc", "-g", "-O0"), ()),
    "crasher": ("crasher.c", ("gcc", "-g", "-O0", "-pthread"), ()),
}
AARCH64_SUBJECTS = {
    "numbers": ("numbers.c", ("aarch64-linux-gnu-gcc", "-g", "-O0"), ("-lm",)),
    "lists": ("lists.c", ("aarch64-linux-gnu-gcc", "-g", "-O0", "-no-pie"), ()),
    "handlers": ("handlers.c", ("aarch64-linux-gnu-gcc", "-g", "-O0", "-static"), ()),
}
AARCH64_SYSROOT = "/usr/aarch64-linux-gnu"


def build(name: str, aarch64: bool = False) -> Path:
    """Compile a subject once."""
    source, command, libraries = (AARCH64_SUBJECTS if aarch64 else SUBJECTS | OTHERS)[name]
    text = (PROGRAMS / source).read_bytes() + repr(command).encode()
    folder = BUILD / ("gdb-aarch64" if aarch64 else "gdb") / hashlib.sha256(text).hexdigest()[:12]
    binary = folder / name
    with locked(BUILD / f"gdb-{name}-{aarch64}.lock"):
        if not binary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([*command, "-o", folder / "partial", PROGRAMS / source, *libraries], check=True)
            (folder / "partial").rename(binary)
    return binary


@dataclass(slots=True)
class Server:
    """A running debug server; `output` is the guest's standard output when it has ended."""

    process: subprocess.Popen[bytes]
    port: int
    output_path: Path

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="backslashreplace")


def listening_port(process: subprocess.Popen[bytes]) -> int:
    """Read "Listening on port N" from a server's stderr."""
    if process.stderr is None:
        raise RuntimeError("no stderr")
    seen = b""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stderr], [], [], 0.5)
        if ready:
            data = os.read(process.stderr.fileno(), 4096)
            if not data:
                break
            seen += data
            if found := re.search(rb"Listening on port (\d+)", seen):
                return int(found[1])
    raise RuntimeError(f"the server did not listen; it said {seen!r}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(command: list[str], port: int | None = None) -> Iterator[Server]:
    """Start a server that prints its port, or listens on the one it was given; end it at the end."""
    with tempfile.TemporaryDirectory(prefix="emugdb-gdb-") as folder:
        output = Path(folder) / "out"
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        with open(output, "wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=environment
            )
        try:
            if port is None:
                port = listening_port(process)
            else:
                wait_for_listener(port, process)
            yield Server(process, port, output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stderr is not None:
                process.stderr.close()


def wait_for_listener(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the kernel's table shows a listener: connecting would take the one connection it serves."""
    wanted = f":{port:04X}"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return
        time.sleep(0.02)
    raise RuntimeError("the server did not listen")


def emugdb(program: Path, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "emulator", "--once", *options, "127.0.0.1:0", str(program), *arguments]


def gdbserver(program: Path, *arguments: str) -> list[str]:
    return ["gdbserver", "--once", "127.0.0.1:0", str(program), *arguments]


def run_gdb(
    port: int, script: list[str], program: Path | None, gdb: str = "gdb", setup: tuple[str, ...] = ()
) -> tuple[str, int]:
    """Run a script in batch gdb; its output and status."""
    command = [gdb, "-nx", "-nh", "-q", "-batch"]
    first = ["set debuginfod enabled off", "set width 0", "set height 0", "set confirm off", *setup]
    for line in (*first, f"target remote 127.0.0.1:{port}", *script):
        command += ["-ex", line]
    if program is not None:
        command.append(str(program))
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT_S, text=True, errors="backslashreplace"
    )
    return done.stdout + "".join(f"stderr: {line}\n" for line in done.stderr.splitlines()), done.returncode


def transcript(
    command: list[str], script: list[str], program: Path, *, port: int | None = None, gdb: str = "gdb",
    setup: tuple[str, ...] = (), more: tuple[tuple[str, str], ...] = (),
) -> list[str]:  # fmt: skip
    """What gdb printed, normalised, then what the guest printed, then gdb's status."""
    with serving(command, port) as server:
        text, status = run_gdb(server.port, script, program, gdb, setup)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(3)
        guest = server.output
    return [*normalise(text, more), "-- guest printed:", *guest.splitlines(), f"-- gdb status {status}"]


REPLACEMENTS: tuple[tuple[str, str], ...] = (
    # Where the kernel puts libraries and the stack is its own affair; the program itself is where gdbserver has it.
    (r"0x0*7fff[0-9a-f]{8}\b", "0xHIGH"),
    # Numbers of processes and threads.
    (r"Thread \d+\.\d+", "Thread N.N"),
    (r"[Pp]rocess \d+", "process N"),
    (r"Remote target", "process N"),
    (r"127\.0\.0\.1:\d+", "HOST:PORT"),
    # Numbers whose size follows from the above: a high address printed in decimal.
    (r"\b14073\d{10}\b", "HIGH"),
    # What emugdb says besides, and the widths of columns that follow.
    (r" \((runnable|blocked|stopped)[^)]*\)", ""),
    (r"(section \.\w+) of /.*", r"\1"),  # gdb names the file when the vDSO is a file too
    (r"(?<=\S)  +", " "),
)
# qemu-user puts an aarch64 program where it likes.
AARCH64_REPLACEMENTS = ((r"\b0x0*(55|40|7f|ff|aa)[0-9a-f]{8,10}\b", "0xHIGH"),)
# Lines that depend on the machine, not on the server.
DROPPED = (
    r"^warning: ",
    r"^stderr: warning: ",
    r"^Reading /",
    r"^stderr: Reading /",
    r"^stderr: \d+\t\.\./",  # a library's source that is not installed: the path is the distribution's
    r"debuginfo",
    r"^Using host libthread_db",
    r"\[Thread debugging using",
)


def normalise(text: str, more: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Drop and replace what no server can be asked to reproduce."""
    lines = []
    for line in text.splitlines():
        if any(re.search(pattern, line) for pattern in DROPPED):
            continue
        for pattern, instead in (*REPLACEMENTS, *more):
            line = re.sub(pattern, instead, line)
        lines.append(line.rstrip())
    return lines


def compare(got: list[str], expected: list[str]) -> str:
    """Empty when they are the same, else what differs."""
    return "\n".join(difflib.unified_diff(expected, got, "expected", "emugdb", n=1, lineterm=""))


def missing(*programs: str) -> str | None:
    """A reason to skip, or None."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None
