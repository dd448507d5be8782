"""Instruction sets: one file each, one `Arch` value each; `by_elf` finds the one for a program."""
