"""A thread that goes to sleep on a futex hands the CPU over in C (hooks/futex.c): nobody can tell.

The same program with the calls made by `serve`, by the run loop (--strace) and by the Python twin: the same thread runs
at the same clock, every time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn, word, ends[2];
static volatile long spins, signals;
static uint64_t seen = 14695981039346656037u;
static void note(long who)
{
    uint64_t clock = __builtin_ia32_rdtsc();
    seen = (seen ^ clock ^ (uint64_t)who << 56) * 1099511628211u;
}
static void hit(int number)
{
    signals++;
}
static void *work(void *arg)
{
    long me = (long)arg;
    char c;
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < 300 * me; k++)
            spins++;
        pthread_mutex_lock(&lock);
        while (turn % 3 != me)
            pthread_cond_wait(&changed, &lock);
        note(me);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        if (me && i % 7 == 0)
            syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
        if (me == 1)
            write(ends[1], "x", 1);
        if (me == 2)
            read(ends[0], &c, 1);
        __atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    }
    return 0;
}
int main(void)
{
    pthread_t t[3];
    int v;
    signal(SIGUSR1, hit);
    pipe(ends);
    for (long i = 0; i < 3; i++)
        pthread_create(&t[i], 0, work, (void *)i);
    while ((v = __atomic_load_n(&word, __ATOMIC_SEQ_CST)) < 3 * ROUNDS) {
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, v, 0, 0, 0);
        note(3);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], 0);
    note(4);
    printf("%d turns, %ld signals, %llx\n", turn, signals, (unsigned long long)seen);
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [(), ("--seed", "5")], ids=["", "seed"])
def test_the_same_thread_runs_at_the_same_clock(seed: tuple[str, ...], tmp_path: Path) -> None:
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-w", "-DROUNDS=40", "-o", program, source, "-lpthread"], check=True)

    def run(*options: str, hooks: str = "auto") -> str:
        words = [sys.executable, "-m", "emulator", "--run", *seed, *options, str(program)]
        # The guest sees it too: its length must not change.
        environment = {"PATH": os.environ["PATH"], "EMUGDB_HOOKS": hooks, "PAD": "." * (6 - len(hooks))}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=140, check=True)
        return done.stdout

    served = run()
    assert served.startswith("120 turns, ")
    assert run() == served
    assert run("--strace", "--strace-output", str(tmp_path / "log")) == served
    assert run(hooks="python") == served
