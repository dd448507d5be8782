"""The GDB Remote Serial Protocol, sans-IO core and trio shell; knows nothing of any emulator."""
