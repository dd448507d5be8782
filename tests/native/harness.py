"""The differential harness: the host kernel is the oracle.

A program under `programs/` prints one line a case, `name: result` (see `programs/case.h`).  It is compiled once with
the host's gcc, run on the host kernel and run by `python -m emulator --run`; the lines must be the same.

    python -m tests.native.harness pipes            shows the differences of one program (or of all)
    python -m tests.native.harness --native pipes   prints what the host kernel says
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"
BUILD = ROOT / "build" / "native"
TIMEOUT_S = int(os.environ.get("NATIVE_TIMEOUT", "100"))
GCC = ("gcc", "-O1", "-g", "-w", "-pthread", "-fno-strict-aliasing")
KINDS = {
    "dynamic": (*GCC,),
    "static": (*GCC, "-static"),
    "aarch64": ("aarch64-linux-gnu-gcc", *GCC[1:]),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run printed: case name -> result in the order printed, and how it ended."""

    cases: dict[str, str]
    status: int
    stderr: str


def names() -> list[str]:
    """The programs there are."""
    return sorted(path.stem for path in PROGRAMS.glob("*.c"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time: pytest-xdist's workers share builds and runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(name: str, kind: str = "dynamic") -> Path:
    """Compile a program, or find it compiled from the same text."""
    source = PROGRAMS / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + (PROGRAMS / "case.h").read_bytes() + repr(KINDS[kind]).encode())
    binary = BUILD / f"{name}-{kind}-{digest.hexdigest()[:12]}"
    with locked(BUILD / f"{name}-{kind}.lock"):
        if not binary.exists():
            for old in BUILD.glob(f"{name}-{kind}-*"):
                old.unlink()
            partial = binary.with_name(f"{name}-{kind}.partial")
            subprocess.run([*KINDS[kind], "-o", partial, source, "-lrt", "-lm"], check=True)
            partial.rename(binary)
    return binary


def parse(text: str) -> dict[str, str]:
    """Lines to cases; a repeated name is numbered."""
    cases: dict[str, str] = {}
    for line in text.splitlines():
        name, _, result = line.partition(": ")
        unique, number = name, 1
        while unique in cases:
            number += 1
            unique = f"{name} #{number}"
        cases[unique] = result
    return cases


def run(command: list[str], where: str) -> Outcome:
    """Run in an empty directory of its own with a small environment."""
    with tempfile.TemporaryDirectory(prefix=f"emugdb-{where}-") as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": folder,
            "PYTHONPATH": str(ROOT),
        }
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                umask=0o22,
            )
        except subprocess.TimeoutExpired as expired:
            end_leftovers(folder)
            out = (expired.stdout or b"").decode(errors="backslashreplace")
            return Outcome(parse(out), -1, f"no end after {TIMEOUT_S} s")
    return Outcome(
        parse(done.stdout.decode(errors="backslashreplace")),
        done.returncode,
        done.stderr.decode(errors="backslashreplace"),
    )


def end_leftovers(folder: str) -> None:
    """Kill what a program that hangs has started: everything whose HOME is this run's folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def run_native(binary: Path) -> Outcome:
    """On the host kernel."""
    return run([str(binary)], "n")


def run_emulated(binary: Path, *options: str) -> Outcome:
    """By the emulator of this checkout."""
    # The guest's environment is the native run's: PYTHONPATH is ours alone.
    return run([sys.executable, "-m", "emulator", "--run", *options, str(binary)], "e")


def cached(name: str, what: str) -> Outcome:
    """One run a test session, shared by its workers."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"pid{os.getpid()}")
    folder = Path(tempfile.gettempdir()) / f"emugdb-native-{os.getuid()}" / session
    file = folder / f"{name}.{what}.json"
    with locked(folder / f"{name}.{what}.lock"):
        if file.exists():
            return Outcome(**json.loads(file.read_text()))
        binary = build(name)
        outcome = run_native(binary) if what == "native" else run_emulated(binary)
        file.write_text(json.dumps({"cases": outcome.cases, "status": outcome.status, "stderr": outcome.stderr}))
    return outcome


def differences(native: Outcome, emulated: Outcome) -> list[str]:
    """A sentence for every case that differs, in the order of the native run."""
    lines = []
    for name, expected in native.cases.items():
        got = emulated.cases.get(name)
        if got != expected:
            lines.append(f"{name}: native {expected!r}, emulated {got!r}")
    lines += [f"{name}: only emulated" for name in emulated.cases if name not in native.cases]
    if native.status != emulated.status:
        lines.append(f"status: native {native.status}, emulated {emulated.status}")
    return lines


def available() -> str | None:
    """Why the differential suite cannot run here, or None."""
    if shutil.which("gcc") is None:
        return "no gcc"
    return None if os.uname().machine == "x86_64" else "the host is no x86-64"


def main(arguments: list[str]) -> int:
    """Compare by hand."""
    native_only = "--native" in arguments
    kind = "static" if "--static" in arguments else "dynamic"
    chosen = [word for word in arguments if not word.startswith("-")] or names()
    total = wrong = 0
    for name in chosen:
        native = run_native(build(name, kind))
        if native_only:
            for case, result in native.cases.items():
                print(f"{case}: {result}")
            print(f"status {native.status}", native.stderr)
            continue
        emulated = run_emulated(build(name, kind))
        found = differences(native, emulated)
        total += len(native.cases)
        wrong += len(found)
        print(f"{name}: {len(native.cases)} cases, {len(found)} differ")
        for line in found:
            print(f"    {line}")
        if emulated.status == -1:
            print(f"    stood still behind: {list(emulated.cases)[-1:]}")
        if found and emulated.stderr:
            print("    stderr:", emulated.stderr[-2000:])
    print(f"{total} cases, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
