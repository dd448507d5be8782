"""Programs of every kind of linking, x86-64 and aarch64, on the C hooks and on their Python twin."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gdb.clients import missing
from tests.native.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SOURCE = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static __thread int local = 3;
static int before;
__attribute__((constructor)) static void first(void) { before = 7; }
static void last(void) { puts("atexit"); }
int main(int argc, char **argv)
{
    atexit(last);
    char *p = malloc(1 << 20);
    memset(p, 'x', 1 << 20);
    double d = 1;
    for (int i = 1; i < 20; i++)
        d = d / i + local;
    printf("%d %d %s %.12f %c\n", before, argc, argv[argc - 1], d, p[99999]);
    FILE *f = fopen("/does/not/exist", "r");
    printf("%d %d %s\n", f == 0, errno == ENOENT, getenv("WORD"));
    return 17;
}
"""
KINDS: dict[str, tuple[str, ...]] = {
    "static": ("gcc", "-static"),
    "static-pie": ("gcc", "-static-pie"),
    "pie": ("gcc", "-pie", "-fPIE"),
    "no-pie": ("gcc", "-no-pie", "-fno-pie"),
    "optimised": ("gcc", "-O3", "-march=x86-64-v2"),
    "bind-now": ("gcc", "-Wl,-z,now", "-Wl,-z,relro"),
    "musl": ("musl-gcc", "-static"),
    "musl dynamic": ("musl-gcc",),
    "aarch64": ("aarch64-linux-gnu-gcc",),
    "aarch64 static": ("aarch64-linux-gnu-gcc", "-static"),
    "aarch64 optimised": ("aarch64-linux-gnu-gcc", "-O3", "-march=armv8.2-a+lse"),
}


def built(kind: str, folder: Path) -> Path:
    source, binary = folder / "linked.c", folder / "linked"
    source.write_text(SOURCE)
    subprocess.run([*KINDS[kind], "-w", "-o", binary, source], check=True)
    return binary


def emulated(binary: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "emulator", "--run", *options, str(binary), "one", "two"],
        cwd=ROOT, env={"WORD": "set", "PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@functools.cache
def hooks_available(kind: str) -> bool:
    """The C hooks want a compiler at installation."""
    done = subprocess.run(
        [sys.executable, "-m", "emulator", "--hooks", kind, "--run", "/bin/true"], cwd=ROOT, check=False
    )
    return done.returncode == 0


@pytest.mark.parametrize("hooks", ["c", "python"])
@pytest.mark.parametrize("kind", KINDS)
def test_linking(kind: str, hooks: str, tmp_path: Path) -> None:
    if reason := missing(KINDS[kind][0]):
        pytest.skip(reason)
    if not hooks_available(hooks):
        pytest.skip(f"no {hooks} hooks here")
    status, text = emulated(built(kind, tmp_path), "--hooks", hooks)
    lines = text.splitlines()
    assert status == 17
    assert lines[0].startswith("7 3 two ")
    assert lines[1:] == ["1 1 set", "atexit"]
    if not kind.startswith("aarch64"):
        done = subprocess.run(
            [tmp_path / "linked", "one", "two"], env={"WORD": "set"}, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert text == done.stdout


@pytest.mark.parametrize(
    "case", ["text", "empty", "directory", "missing", "not executable", "truncated", "other machine"]
)
def test_what_cannot_be_executed_is_said_in_a_sentence(case: str, tmp_path: Path) -> None:
    path = tmp_path / "program"
    data = Path("/bin/true").read_bytes()
    contents = {
        "text": b"just text\n",
        "empty": b"",
        "truncated": data[:100],
        "other machine": data[:18] + b"\x08\x00" + data[20:],
        "not executable": data,
    }
    if case == "directory":
        path.mkdir()
    elif case != "missing":
        path.write_bytes(contents[case])
        path.chmod(0o644 if case == "not executable" else 0o755)
    status, text = emulated(path)
    assert status not in (0, 139)
    assert "Traceback" not in text
    assert str(path) in text or path.name in text
