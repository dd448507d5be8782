"""scripts/bench: emugdb beside gdbserver, qemu-x86_64 and the bare host, interleaved in one run.

Every figure is the median of `--rounds`; a ratio compares medians of the same run (absolute figures depend on the
machine and its load).  `--json FILE` keeps every sample.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.benchmarks.network import redis_requests, tcp_echoes
from scripts.benchmarks.peers import ENVIRONMENT, PEERS, ROOT, Guest, Measure, Peer, connected, served
from scripts.benchmarks.rsp import Client, rate


def attached_seconds(peer: Peer, guest: Guest, kernel: str, count: int, points: tuple[str, ...] = ()) -> float:
    """From `c` to the exit, with a debugger attached (a process without one for the bare host)."""
    if peer.serve is None:
        start = time.perf_counter()
        subprocess.run(peer.run(guest.command(kernel, count)), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start
    with connected(peer, guest.command(kernel, count)) as client:
        for point in points:
            if client.ask(point) != b"OK":
                raise NotImplementedError(point)
        start = time.perf_counter()
        reply = client.resume("c")
        if reply[:1] != b"W":
            raise RuntimeError(f"stopped with {reply!r}")
        return time.perf_counter() - start


def kernel_ns(kernel: str, count: int, points: Callable[[Guest], tuple[str, ...]] = lambda guest: ()) -> Measure:
    """ns an iteration, start-up subtracted by a second, small run."""

    def measure(peer: Peer, guest: Guest) -> float:
        # A guest too slow for the count is given less of it.
        tenth = attached_seconds(peer, guest, kernel, max(count // 10, 1), points(guest))
        if tenth > 2:
            return tenth / max(count // 10, 1) * 1e9
        whole = attached_seconds(peer, guest, kernel, count, points(guest))
        return max(whole - tenth, 1e-9) / (count - max(count // 10, 1)) * 1e9

    return measure


def plain_ns(kernel: str, count: int) -> Measure:
    """The same without a debugger: `--run`."""

    def run(peer: Peer, guest: Guest, n: int) -> float:
        start = time.perf_counter()
        subprocess.run(peer.run(guest.command(kernel, n)), stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
        return time.perf_counter() - start

    def measure(peer: Peer, guest: Guest) -> float:
        few = max(count // 10, 1)
        small = run(peer, guest, few)
        return max(run(peer, guest, count) - small, 1e-9) / (count - few) * 1e9

    return measure


def told_ns(kernel: str, count: int) -> Measure:
    """What the guest says itself."""

    def measure(peer: Peer, guest: Guest) -> float:
        words = peer.run(guest.command(kernel, count))
        return float(subprocess.run(words, capture_output=True, check=True, env=ENVIRONMENT).stdout)

    return measure


def packet_rate(packet: str) -> Measure:
    def measure(peer: Peer, guest: Guest) -> float:
        with connected(peer, guest.command("hits", 100000000)) as client:
            client.ask(f"Z0,{guest.symbols['hit']:x},1")
            client.resume("c")
            if client.ask(packet)[:1] in (b"", b"E"):
                raise NotImplementedError
            return rate(client, packet, 0.4)

    return measure


def stepping(peer: Peer, guest: Guest) -> float:
    with connected(peer, guest.command("int", 100000000)) as client:
        packet = "vCont;s" if b";s" in client.ask("vCont?") else "s"
        return rate(client, packet, 0.5)


def range_stepping(peer: Peer, guest: Guest) -> float:
    """Instructions a second inside one vCont;r: a range around the whole text, ended by an interrupt."""
    with connected(peer, guest.command("hits", 100000000)) as client:
        if b";r" not in client.ask("vCont?"):
            raise NotImplementedError
        address = guest.symbols["counter"]
        point = f"0,{guest.symbols['hit']:x},1"
        client.ask("Z" + point)
        stopped = client.resume("vCont;c").decode()
        client.ask("z" + point)
        thread = stopped.partition("thread:")[2].partition(";")[0]
        # counter += i: after n calls it is n(n-1)/2, and a call is about 8 instructions.
        client.send(f"vCont;r400000,500000:{thread}")
        time.sleep(1.0)
        client.interrupt()
        total = int.from_bytes(bytes.fromhex(client.ask(f"m{address:x},8").decode()), "little")
        calls: float = (2 * total) ** 0.5
        if calls < 10:
            raise NotImplementedError
        return calls * 8 / 1.0


def memory_megabytes(peer: Peer, guest: Guest) -> float:
    with connected(peer, guest.command("random", 100000000)) as client:
        size = min((client.packet_size - 8) // 2, 1 << 19, 700_000)
        start, packet = guest.symbols["main"] & ~4095, ""
        # The largest read inside the text.
        size = min(size, 0x60000)
        packet = f"m{start:x},{size:x}"
        got = len(client.ask(packet)) // 2
        return rate(client, packet, 0.5) * got / 1e6


def breakpoint_hits(peer: Peer, guest: Guest) -> float:
    """Hit and resume as gdb does it: z0, s, Z0, c."""
    with connected(peer, guest.command("hits", 100000000)) as client:
        point = f"0,{guest.symbols['hit']:x},1"
        client.ask("Z" + point)
        vcont = b";s" in client.ask("vCont?")
        client.resume("vCont;c" if vcont else "c")
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < 0.6:
            client.ask("z" + point)
            client.resume("vCont;s" if vcont else "s")
            client.ask("Z" + point)
            if client.resume("vCont;c" if vcont else "c")[:1] != b"T":
                raise RuntimeError("no hit")
            count += 1
        return count / elapsed


def watch_hits(peer: Peer, guest: Guest) -> float:
    with connected(peer, guest.command("hits", 100000000)) as client:
        if client.ask(f"Z2,{guest.symbols['counter']:x},8") != b"OK":
            raise NotImplementedError
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < 0.6:
            if client.resume("c")[:1] != b"T":
                raise RuntimeError("no hit")
            count += 1
        return count / elapsed


def false_conditions(peer: Peer, guest: Guest) -> float:
    """Passes a second of a breakpoint whose condition (rdi == -1) the server evaluates."""
    count = 200000
    with connected(peer, guest.command("hits", count)) as client:
        if not client.conditional:
            raise NotImplementedError
        code = bytes([0x26, 0, 5, 0x25, *[255] * 8, 0x13, 0x27])
        if client.ask(f"Z0,{guest.symbols['hit']:x},1;X{len(code):x},{code.hex()}") != b"OK":
            raise NotImplementedError
        start = time.perf_counter()
        if client.resume("c")[:1] != b"W":
            raise RuntimeError("stopped")
        return count / (time.perf_counter() - start)


def interrupt_ms(kernel: str) -> Measure:
    def measure(peer: Peer, guest: Guest) -> float:
        with connected(peer, guest.command(kernel)) as client:
            samples = []
            client.socket.settimeout(5)
            for _ in range(5):
                client.send("c")
                time.sleep(0.05)
                start = time.perf_counter()
                try:
                    client.interrupt()
                except TimeoutError:
                    raise NotImplementedError from None
                samples.append(time.perf_counter() - start)
            return statistics.median(samples) * 1e3

    return measure


def true_seconds(peer: Peer, guest: Guest) -> float:
    start = time.perf_counter()
    subprocess.run(peer.run(["/bin/true"]), check=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def gdb_seconds(peer: Peer, guest: Guest) -> float:
    """Real gdb at a server that listens: connect, break, continue, backtrace."""
    with served(peer, guest.command("hits", 10)) as (port, _):
        start = time.perf_counter()
        words = ["gdb", "-nx", "-q", "-batch", str(guest.path), "-ex", f"target remote 127.0.0.1:{port}",
                 "-ex", "break hit", "-ex", "continue", "-ex", "bt", "-ex", "kill"]  # fmt: skip
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if "#0  hit" not in done.stdout:
            raise RuntimeError(done.stdout + done.stderr)
        return time.perf_counter() - start


def listening_seconds(peer: Peer, guest: Guest) -> float:
    start = time.perf_counter()
    with served(peer, guest.command("hits", 10)):
        return time.perf_counter() - start


def idle_rss(peer: Peer, guest: Guest) -> float:
    """MiB of the server with a stopped program."""
    with served(peer, guest.command("spin")) as (port, process):
        client = Client(port)
        text = Path(f"/proc/{process.pid}/status").read_text()
        client.close()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return int(found[1]) / 1024 if found else 0.0


def near(guest: Guest) -> tuple[str, ...]:
    return (f"Z0,{guest.symbols['main'] & ~4095 | 0xFFE:x},1",)


def far_watch(guest: Guest) -> tuple[str, ...]:
    return (f"Z2,{guest.symbols['unused_page']:x},8",)


def thousand(guest: Guest) -> tuple[str, ...]:
    start = guest.symbols["never"]
    return tuple(f"Z0,{start + offset:x},1" for offset in range(1000))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `more` tells whether more is better."""

    name: str
    unit: str
    more: bool
    peers: tuple[str, ...]
    measure: Measure


ATTACHED = ("emugdb", "qemu", "gdbserver", "native")
SERVERS = ("emugdb", "gdbserver", "qemu")
PLAIN = ("emugdb", "qemu", "native")
ROWS = (
    Row("int", "ns", False, ATTACHED, kernel_ns("int", 200_000)),
    Row("mem", "ns", False, ATTACHED, kernel_ns("mem", 40_000)),
    Row("fp", "ns", False, ATTACHED, kernel_ns("fp", 20_000)),
    Row("random 64 MiB", "ns", False, ATTACHED, kernel_ns("random", 20_000)),
    Row("int, breakpoint on the page", "ns", False, ("emugdb",), kernel_ns("int", 200_000, near)),
    Row("mem, breakpoint on the page", "ns", False, ("emugdb",), kernel_ns("mem", 40_000, near)),
    Row("mem, watchpoint elsewhere", "ns", False, ("emugdb",), kernel_ns("mem", 40_000, far_watch)),
    Row("system call", "ns", False, ATTACHED, kernel_ns("syscall", 200_000)),
    Row("system call, 1000 breakpoints", "ns", False, ("emugdb",), kernel_ns("syscall", 200_000, thousand)),
    Row("steps", "1/s", True, SERVERS, stepping),
    Row("range-step instructions", "1/s", True, SERVERS, range_stepping),
    Row("g", "1/s", True, SERVERS, packet_rate("g")),
    Row("memory read", "MB/s", True, SERVERS, memory_megabytes),
    Row("breakpoint hit and resume", "1/s", True, SERVERS, breakpoint_hits),
    Row("watchpoint hits", "1/s", True, SERVERS, watch_hits),
    Row("false conditions in the server", "1/s", True, SERVERS, false_conditions),
    Row("interrupt, computing", "ms", False, ("emugdb", "gdbserver"), interrupt_ms("spin")),
    Row("interrupt, blocked", "ms", False, ("emugdb", "gdbserver"), interrupt_ms("block")),
    Row("--run /bin/true", "s", False, PLAIN, true_seconds),
    Row("gdb: connect, break, continue, bt", "s", False, SERVERS, gdb_seconds),
    Row("server start to listening", "s", False, SERVERS, listening_seconds),
    Row("idle server", "MiB", False, SERVERS, idle_rss),
    Row("pipe ping-pong, threads", "ns", False, PLAIN, plain_ns("pipe_threads", 10_000)),
    Row("pipe ping-pong, processes", "ns", False, PLAIN, plain_ns("pipe_processes", 10_000)),
    Row("futex hand-over and back", "ns", False, PLAIN, plain_ns("futex", 20_000)),
    Row("TCP echoes with a host client", "1/s", True, PLAIN, tcp_echoes),
    Row("redis SET from the host", "1/s", True, PLAIN, redis_requests("set")),
    Row("redis GET from the host", "1/s", True, PLAIN, redis_requests("get")),
    Row("fork and wait", "ns", False, PLAIN, plain_ns("fork", 300)),
    Row("fork and wait, 1 GiB touched", "ns", False, PLAIN, told_ns("big_fork", 5)),
    Row("thread create and join", "ns", False, PLAIN, plain_ns("threads", 1000)),
)  # fmt: skip


def collect(rounds: int, chosen: list[Row], guest: Guest) -> dict[str, dict[str, list[float]]]:
    """All samples: row -> peer -> values.  A B A B: every round asks every peer."""
    samples: dict[str, dict[str, list[float]]] = {row.name: {name: [] for name in row.peers} for row in chosen}
    absent: set[tuple[str, str]] = set()
    for number in range(rounds):
        for row in chosen:
            for name in row.peers:
                if (row.name, name) in absent:
                    continue
                try:
                    samples[row.name][name].append(row.measure(PEERS[name], guest))
                except (NotImplementedError, OSError, RuntimeError, subprocess.SubprocessError) as error:
                    absent.add((row.name, name))
                    if not isinstance(error, NotImplementedError):
                        print(f"  {row.name}, {name}: {type(error).__name__} {error}", file=sys.stderr)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return samples


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def table(chosen: list[Row], samples: dict[str, dict[str, list[float]]]) -> list[str]:
    """Markdown: medians, and how many times as good as each peer emugdb is (above 1 is better)."""
    columns = [name for name in PEERS if any(name in row.peers for row in chosen)]
    lines = [
        "| | unit | " + " | ".join(columns) + " | emugdb is x times as good as |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in chosen:
        medians = {name: statistics.median(values) for name, values in samples[row.name].items() if values}
        cells = [number(medians[name]) if name in medians else "-" for name in columns]
        ratios = [
            f"{name} {(medians['emugdb'] / value if row.more else value / medians['emugdb']):.2f}"
            for name, value in medians.items()
            if name != "emugdb" and "emugdb" in medians and value
        ]
        lines.append(f"| {row.name} | {row.unit} | {' | '.join(cells)} | {', '.join(ratios)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="rows whose name contains one of these, comma-separated")
    parser.add_argument("--json", type=Path, help="write every sample there")
    parser.add_argument("--rspbench", type=Path, help="also run the compare.py of this folder (an external benchmark)")
    options = parser.parse_args()
    chosen = [row for row in ROWS if not options.only or any(word in row.name for word in options.only.split(","))]
    with tempfile.TemporaryDirectory(prefix="emugdb-bench-") as folder:
        samples = collect(options.rounds, chosen, Guest(Path(folder)))
    print("\n".join(table(chosen, samples)))
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "samples": samples}, indent=1))
    if options.rspbench:
        command = f"{sys.executable} -m emulator --once 127.0.0.1:{{port}} {{program}} {{args}}"
        subprocess.run(
            [sys.executable, "compare.py", "--peers", "stubs/peers.json", "--only", "gdbserver,qemu", "--stub",
             f"emugdb={command}", "--rounds", str(options.rounds)],
            cwd=options.rspbench, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip


if __name__ == "__main__":
    main()
