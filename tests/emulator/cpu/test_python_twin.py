"""The Python hooks pass the tests of the C hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.cpu import mmu

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(mmu.HOOKS_KIND != "c", reason="this is the Python twin")
def test_the_same_tests_pass_without_c() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    run = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "EMUGDB_HOOKS": "python"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:]
