"""Go's runtime makes system calls of its own, without a C library: threads by clone, preemption by signals, epoll."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.gdb.clients import emugdb, missing, run_gdb, serving
from tests.native.harness import BUILD, ROOT, locked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

SOURCES = Path(__file__).resolve().parent / "go"
FILES = {"amd64": ("goroutines.go", "serving.go"), "arm64": ("goroutines.go",)}


@functools.cache
def build(machine: str) -> Path:
    """A static program, compiled once (the standard library with it, hence the cache's own folder)."""
    sources = [SOURCES / name for name in FILES[machine]]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    binary = BUILD / f"go-{machine}-{digest}"
    with locked(BUILD / f"go-{machine}.lock"), tempfile.TemporaryDirectory(prefix="emugdb-go-") as cache:
        if not binary.exists():
            environment = {
                "PATH": os.environ["PATH"], "HOME": cache, "GOCACHE": cache, "GOFLAGS": "-p=2", "GO111MODULE": "off",
                "CGO_ENABLED": "0", "GOARCH": machine,
            }  # fmt: skip
            partial = binary.with_name(f"go-{machine}.partial")
            subprocess.run(["go", "build", "-o", partial, *sources], check=True, env=environment, cwd=cache)
            partial.rename(binary)
    return binary


def outcome(*command: str) -> tuple[int, str, str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("options", [(), ("--seed", "3")])
def test_the_same_output_and_status(options: tuple[str, ...]) -> None:
    if reason := missing("go"):
        pytest.skip(reason)
    program = str(build("amd64"))
    emulated = outcome(sys.executable, "-m", "emulator", "--run", *options, program)
    assert emulated == outcome(program)
    assert emulated[0] == 7


def test_another_machines() -> None:
    """The same source for aarch64 says the same."""
    if reason := missing("go"):
        pytest.skip(reason)
    emulated = outcome(sys.executable, "-m", "emulator", "--run", str(build("arm64")))
    status, native, _ = outcome(str(build("amd64")))
    assert emulated == (status, native[: native.index("200 POST")], "")


def test_a_debugger_stops_a_goroutine() -> None:
    if reason := missing("go", "gdb"):
        pytest.skip(reason)
    program = build("amd64")
    script = [
        "break main.Work if n == 400", "continue", "print n", "bt 2", "info threads", "finish", "delete",
        "tbreak main.(*node).count", "continue", "info locals", "continue", "bt 2", "signal SIGSEGV", "continue",
    ]  # fmt: skip
    with serving(emugdb(program)) as server:
        text, status = run_gdb(server.port, script, program)
        server.process.wait(60)
        printed = server.output
    assert status == 0, text
    assert "$1 = 400" in text
    assert "main.goroutines.func1" in text
    assert "Temporary breakpoint 2, main.(*node).count" in text
    assert "received signal SIGSEGV" in text  # the nil pointer, on its way to the runtime's handler
    assert "#1  0x" in text
    assert "main.panics" in text
    assert "received signal SIGUSR1" in text
    assert "exited with code 07" in text
    assert printed == outcome(str(program))[1]
