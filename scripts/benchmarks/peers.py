"""Who is measured, and on what: the peers, the compiled guest, and servers that listen and end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.rsp import Client

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to run the guest: `serve` under a debug server, `run` without one."""

    name: str
    serve: Callable[[int, list[str]], list[str]] | None
    run: Callable[[list[str]], list[str]]


PEERS = {
    "emugdb": Peer(
        "emugdb",
        lambda port, program: [sys.executable, "-m", "emulator", "--once", f"127.0.0.1:{port}", *program],
        lambda program: [sys.executable, "-m", "emulator", "--run", *program],
    ),
    "qemu": Peer(
        "qemu",
        lambda port, program: ["qemu-x86_64", "-g", str(port), *program],
        lambda program: ["qemu-x86_64", *program],
    ),
    "gdbserver": Peer(
        "gdbserver",
        lambda port, program: ["gdbserver", "--once", f"127.0.0.1:{port}", *program],
        lambda program: program,
    ),
    "native": Peer("native", None, lambda program: program),
}  # fmt: skip


class Guest:
    """The compiled guest and its symbols."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "guest"
        subprocess.run(
            ["gcc", "-O2", "-g", "-static", "-no-pie", "-pthread", "-o", self.path, HERE / "guest.c"], check=True
        )
        table = subprocess.run(["nm", self.path], check=True, capture_output=True, text=True).stdout
        self.symbols = {
            line.split()[2]: int(line.split()[0], 16) for line in table.splitlines() if len(line.split()) == 3
        }

    def command(self, kernel: str, count: int = 1) -> list[str]:
        return [str(self.path), kernel, str(count)]


Measure = Callable[[Peer, Guest], float]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    wanted = f":{port:04X}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table) as lines:
                if any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in list(lines)[1:]):
                    return
        time.sleep(0.005)
    raise RuntimeError("did not listen")


@contextmanager
def listening(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The command once it listens on `port`, ended at the end."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        wait_listening(port, process)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


@contextmanager
def served(peer: Peer, program: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A debug server with the program on a free port, ended at the end."""
    if peer.serve is None:
        raise NotImplementedError
    port = free_port()
    with listening(peer.serve(port, program), port) as process:
        yield port, process


@contextmanager
def connected(peer: Peer, program: list[str]) -> Iterator[Client]:
    with served(peer, program) as (port, _):
        client = Client(port)
        try:
            yield client
        finally:
            client.close()
