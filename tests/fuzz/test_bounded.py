"""The fuzzers of `tests.fuzz.main`, bounded: a seed a day would be no test, so the seeds are fixed."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.fuzz.main import corrupt_program, fuzz_server, fuzz_system_calls
from tests.gdb.clients import missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_corrupt_programs_end_with_a_sentence_or_a_signal(tmp_path: Path) -> None:
    rng = random.Random(1)
    original = Path("/bin/true").read_bytes()
    until = time.monotonic() + 20
    for _ in range(40):
        if complaint := corrupt_program(rng, tmp_path, original):
            pytest.fail(complaint)
        if time.monotonic() > until:
            break


def test_server_survives_any_client() -> None:
    if complaint := fuzz_server(random.Random(2), time.monotonic() + 15):
        pytest.fail(complaint)


@pytest.mark.parametrize("seed", [3, 4])
def test_nothing_the_guest_does_ends_the_emulator(seed: int) -> None:
    if reason := missing("gcc"):
        pytest.skip(reason)
    if complaint := fuzz_system_calls(seed, 6):
        pytest.fail(complaint)
