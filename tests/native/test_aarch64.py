"""The same programs compiled for aarch64 print what the host kernel says to x86-64's: Linux is one system.

Only programs whose lines do not depend on the ISA, and which do not run the host's own programs.
"""

from __future__ import annotations

import shutil

import pytest

from tests.native import harness

# Lines that say something else there, and why.
EXPLAINED = {
    "files_pipes": {"exec closes": "runs the host's /bin/sh"},
    "memory": {
        "mmap fixed top": "2 ** 48 bytes of user space, not 2 ** 47",
        "mincore hole": "what lies beside a mapping is the layout's",
        "madvise hole": "what lies beside a mapping is the layout's",
        "mlock hole": "what lies beside a mapping is the layout's",
    },
}
PROGRAMS = (
    "bad_descriptors",
    "files_io",
    "files_pipes",
    "memory",
    "polling",
    "signals",
    "sockets_data",
    "sockets_errors",
    "sockets_unix",
    "times",
)


@pytest.mark.slow
@pytest.mark.timeout(2 * harness.TIMEOUT_S + 60)
@pytest.mark.parametrize("program", PROGRAMS)
def test_prints_what_x86_64_prints(program: str) -> None:
    if reason := harness.available():
        pytest.skip(reason)
    if not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("no cross compiler")
    foreign = harness.run_emulated(harness.build(program, "aarch64"))
    found = harness.differences(harness.cached(program, "native"), foreign)
    explained = EXPLAINED.get(program, {})
    assert [line for line in found if line.partition(": ")[0] not in explained] == []
