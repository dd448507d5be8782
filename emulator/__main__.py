"""`python -m emulator` is `emugdb`."""

from emulator.cli import main

main()
