"""Two runs with the same inputs give the same clock at every system call, with and without breakpoints (issue 2, 4).

What differs between two runs by its nature (the bytes getrandom(2) gives, the time) is no part of the comparison: the
programs chosen do not act on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gdb.clients import build, emugdb, missing, run_gdb, serving
from tests.native.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

COMMANDS: dict[str, list[str]] = {
    "true": ["/bin/true"],
    "ls": ["/bin/ls", "-l", "/etc/debian_version"],
    "bash": ["/bin/bash", "-c", "x=$(echo sub | tr s S); for i in 1 2 3; do echo $i $x; done"],
    "perl": ["/usr/bin/perl", "-e", "print join ',', map { $_ * 2 } 1 .. 50"],
    "python": ["/usr/bin/python3", "-S", "-c", "print(sum(range(1000)))"],
}  # fmt: skip


def clocks(path: Path) -> list[tuple[str, str]]:
    """(clock, name) of every line."""
    found = []
    for line in path.read_text(errors="backslashreplace").splitlines():
        words = line.replace("[pid", "").split()
        name = next((word.partition("(")[0] for word in words if "(" in word), "")
        found.append((words[0], name))
    return found


def traced_run(command: list[str], output: Path, *options: str) -> list[tuple[str, str]]:
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "PYTHONHASHSEED": "0", "PERL_HASH_SEED": "0"}
    words = [sys.executable, "-m", "emulator", "--run", "--strace", "--strace-clock", "--strace-output", str(output)]
    subprocess.run(
        [*words, *options, *command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        check=True, timeout=100,
    )  # fmt: skip
    return clocks(output)


@pytest.mark.parametrize("name", COMMANDS)
def test_two_runs_have_the_same_clock_at_every_system_call(name: str, tmp_path: Path) -> None:
    if reason := missing(COMMANDS[name][0]):
        pytest.skip(reason)
    first = traced_run(COMMANDS[name], tmp_path / "first")
    second = traced_run(COMMANDS[name], tmp_path / "second")
    assert len(first) > 5
    assert second == first


def debugged(program: Path, script: list[str], output: Path) -> list[tuple[str, str]]:
    options = ("--strace", "--strace-clock", "--strace-output", str(output))
    with serving(emugdb(program, options=options)) as server:
        text, status = run_gdb(server.port, script, program)
        assert status == 0, text
        assert "exited" in text
        server.process.wait(10)
    return clocks(output)


@pytest.mark.parametrize("subject", ["numbers", "lists", "objects"])
def test_breakpoints_and_steps_do_not_move_the_clock(subject: str, tmp_path: Path) -> None:
    if reason := missing("gdb", "gcc", "g++"):
        pytest.skip(reason)
    program = build(subject)
    plain = debugged(program, ["continue"], tmp_path / "plain")
    points = ["break leaf", "continue", "stepi", "step", "next", "continue", "watch counter", "continue"]
    stopped = debugged(program, [*points, "delete", "continue"], tmp_path / "stopped")
    assert len(plain) > 5
    assert stopped == plain
