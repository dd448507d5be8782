"""Two runs with the same inputs have the same instruction clock at every system call."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RANDOM = re.compile(r"random\(.*")  # what the host gave is an input
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int spins, order[8], n;
static void *work(void *arg)
{
    for (int i = 0; i < 20; i++) {
        for (int k = 0; k < 20000 * ((long)arg + 1); k++)
            spins++;
        pthread_mutex_lock(&lock);
        sched_yield();
        pthread_mutex_unlock(&lock);
    }
    order[n++] = (long)arg;
    return arg;
}
int main(void)
{
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], 0, work, (void *)i);
    if (!fork())
        _exit(0);
    wait(0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], 0);
    printf("%d%d%d%d\n", order[0], order[1], order[2], order[3]);
    return 0;
}
"""


def trace(program: Path, log: Path, *options: str) -> str:
    """Every system call with the clock before it."""
    subprocess.run(
        [sys.executable, "-m", "emulator", "--run", "--strace-clock", "--strace-output", log, *options, program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=True,
    )
    return RANDOM.sub("random()", log.read_text())


@pytest.mark.slow
def test_the_clock_is_the_same_at_every_system_call(tmp_path: Path) -> None:
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-o", program, source, "-lpthread"], check=True)
    plain = trace(program, tmp_path / "1")
    assert plain == trace(program, tmp_path / "2")
    seeded = trace(program, tmp_path / "3", "--seed", "7")
    assert seeded == trace(program, tmp_path / "4", "--seed", "7")
    assert seeded != plain
    assert plain.count("clone") >= 5


SPINS_IN_CALLS = r"""
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void)
{
    volatile int *turns = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t other = fork();
    if (other == 0)
        for (;;)
            turns[0]++, getppid();
    for (int round = 0; round < 5; round++) {
        int calls = 0, before = turns[0];
        while (turns[0] == before && getppid() >= 0)
            calls++;
        printf("%d\n", calls);
    }
    kill(other, SIGKILL);
    return 0;
}
"""


@pytest.mark.slow
def test_system_calls_use_up_a_turn_watched_or_not(tmp_path: Path) -> None:
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(SPINS_IN_CALLS)
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)

    def calls(*options: str) -> list[int]:
        words = [sys.executable, "-m", "emulator", "--run", *options, str(program)]
        done = subprocess.run(
            words, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=100, check=True
        )
        return [int(line) for line in done.stdout.split()]

    plain = calls()
    assert max(plain) <= 2001  # the first turn was one without competitors
    assert max(plain[1:]) <= 201
    assert calls("--strace", "--strace-output", str(tmp_path / "log")) == plain
    assert calls("--hooks", "python", "-U", "EMUGDB_HOOKS") == plain
