"""README's support tables are what the registries print; what it names is there."""

from __future__ import annotations

import re
import subprocess
import sys

from scripts.support_tables import README, rendered
from tests.contracts.source import ROOT


def test_tables_are_what_the_registries_print() -> None:
    text = README.read_text()
    assert rendered(text) == text, "run: python scripts/support_tables.py --write"


def test_options_it_shows_exist() -> None:
    shown = set(re.findall(r"(?<=\s)(--[a-z-]+)", re.sub(r"scripts/\S+.*", "", README.read_text())))
    words = [sys.executable, "-m", "emulator", "--help"]
    usage = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {option for option in shown if option not in usage} - {"--config"} == set()


def test_scripts_it_names_exist() -> None:
    named = set(re.findall(r"scripts/[a-z_]+(?:\.py)?", README.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()
