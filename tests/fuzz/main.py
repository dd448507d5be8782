"""Fuzzers, bounded by time: `python -m tests.fuzz.main SECONDS [SEED]`.

Whatever goes in, the outcome is one of the defined ones: an error sentence, a status, a reply; never a traceback, never
a server that does not serve the next client.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.gdb.clients import serving
from tests.native.harness import BUILD, ROOT, locked

SYSCALLS = Path(__file__).resolve().parent / "syscalls.c"


def corrupt_program(rng: random.Random, folder: Path, original: bytes) -> str | None:
    """Run a program with some bytes changed (headers mostly); a complaint or None."""
    data = bytearray(original)
    for _ in range(rng.randint(1, 6)):
        place = rng.choice([rng.randrange(64), rng.randrange(0x400), rng.randrange(len(data))])
        data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    path = folder / "corrupt"
    path.write_bytes(data)
    path.chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "emulator", "--run", "--memory", "512M", str(path)],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None  # it may well loop for ever
    if b"Traceback" in done.stderr or done.returncode < 0:
        return f"status {done.returncode}: {done.stderr.decode(errors='replace')[-1500:]}"
    return None


PACKETS = (
    b"?", b"g", b"p%x", b"P%x=%x", b"m%x,%x", b"M%x,%x:00", b"X%x,%x:a", b"x%x,%x", b"Z%d,%x,%x", b"z%d,%x,%x", b"H%cp%x.%x",
    b"T%x", b"vCont;s:%x", b"vCont;c;s", b"vCont?", b"vCont;r%x,%x:1", b"qXfer:auxv:read::%x,%x", b"qXfer:features:read:target.xml:%x,%x",
    b"qSupported:x%x", b"qRcmd,%x", b"vFile:open:%x,%x,%x", b"vFile:pread:%x,%x,%x", b"qSearch:memory:%x;%x;%x", b"qCRC:%x,%x",
    b"QPassSignals:%x;%x", b"qGetTLSAddr:%x,%x,%x", b"qThreadExtraInfo,%x", b"G%x", b"s%x", b"D;%x", b"qfThreadInfo", b"qsThreadInfo",
    b"QCatchSyscalls:1;%x", b"_M%x,rw", b"qMemoryRegionInfo:%x", b"vMustReplyEmpty", b"%x", b"",
)  # fmt: skip
INTERESTING = (
    0,
    1,
    2,
    0xFF,
    0x1000,
    0x7FFFFFFF,
    0xFFFFFFFF,
    0x400000,
    0x7FFFF7DD0000,
    (1 << 63) - 1,
    (1 << 64) - 1,
    1 << 64,
)


def random_packet(rng: random.Random) -> bytes:
    template = rng.choice(PACKETS)
    out = b""
    pieces = template.split(b"%")
    out = pieces[0]
    for piece in pieces[1:]:
        kind, rest = piece[:1], piece[1:]
        value = rng.choice([*INTERESTING, rng.getrandbits(16)])
        out += {b"x": b"%x" % value, b"d": b"%d" % (value & 7), b"c": rng.choice([b"g", b"c", b"x"])}[kind] + rest
    if rng.random() < 0.2:
        out = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
    framed = b"$" + out.replace(b"#", b"").replace(b"$", b"") + b"#%02x" % (sum(out) & 255)
    if rng.random() < 0.15:
        framed = framed[: rng.randrange(len(framed))]
    if rng.random() < 0.1:
        framed += b"\x03"
    return framed


def garbage_session(rng: random.Random, port: int) -> None:
    """A client that talks nonsense and vanishes."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(0.2)
        for _ in range(rng.randrange(1, 40)):
            client.sendall(random_packet(rng))
            if rng.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    client.recv(65536)


def still_serves(port: int) -> bool:
    """Whether a well-behaved client gets an answer."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(5)
            client.sendall(b"$vMustReplyEmpty#3a")
            answer = b""
            while b"$#00" not in answer:
                data = client.recv(4096)
                if not data:
                    break
                answer += data
            if b"$#00" in answer:
                return True
        time.sleep(0.1)
    return False


def fuzz_server(rng: random.Random, until: float, program: str = "/bin/sleep") -> str | None:
    """Garbage clients, one after another; a complaint or None."""
    command = [sys.executable, "-m", "emulator", "--keep", "127.0.0.1:0", program, "1000"]
    with serving(command) as server:
        while time.monotonic() < until:
            state = rng.getstate()
            garbage_session(rng, server.port)
            if not still_serves(server.port):
                said = ""
                if server.process.poll() is not None and server.process.stderr is not None:
                    said = os.read(server.process.stderr.fileno(), 65536).decode(errors="replace")
                return f"does not serve any more after {hash(state)}; ended {server.process.poll()}: {said[-1500:]}"
    return None


def fuzz_system_calls(seed: int, seconds: int) -> str | None:
    """Random system calls with hostile arguments in the guest; a complaint or None."""
    binary = BUILD / "fuzz-syscalls"
    with locked(BUILD / "fuzz.lock"):
        if not binary.exists() or binary.stat().st_mtime < SYSCALLS.stat().st_mtime:
            subprocess.run(["gcc", "-O1", "-w", "-static", "-o", binary, SYSCALLS], check=True)
    with tempfile.TemporaryDirectory(prefix="emugdb-fuzz-") as folder:
        words = [
            sys.executable,
            "-m",
            "emulator",
            "--run",
            "--memory",
            "1G",
            "--root",
            folder,
            "/fuzz",
            str(seed),
            str(seconds),
        ]
        (Path(folder) / "fuzz").write_bytes(binary.read_bytes())
        (Path(folder) / "fuzz").chmod(0o755)
        (Path(folder) / "tmp").mkdir()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds * 3 + 60
            )  # fmt: skip
        except subprocess.TimeoutExpired as expired:
            return (
                f"seed {seed}: no end; printed {(expired.stdout or b'')[-300:]!r} {(expired.stderr or b'')[-1500:]!r}"
            )
    if done.returncode != 0 or b"Traceback" in done.stderr or b"rounds" not in done.stdout:
        return f"seed {seed}: status {done.returncode} {done.stdout[-300:]!r}\n{done.stderr.decode(errors='replace')[-3000:]}"
    return None


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    third = seconds / 3
    failures = []
    until = time.monotonic() + third
    original = Path("/bin/true").read_bytes()
    count = 0
    with tempfile.TemporaryDirectory(prefix="emugdb-fuzz-") as folder:
        while time.monotonic() < until:
            count += 1
            if complaint := corrupt_program(rng, Path(folder), original):
                failures.append(f"corrupt program: {complaint}")
    print(f"{count} corrupt programs")
    if complaint := fuzz_server(rng, time.monotonic() + third):
        failures.append(f"packets: {complaint}")
    if complaint := fuzz_system_calls(seed, max(int(third), 1)):
        failures.append(f"system calls: {complaint}")
    print("\n".join(failures) or "nothing found")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
