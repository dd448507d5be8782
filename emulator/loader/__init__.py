"""From a file to the picture of a process: ELF, `#!`, auxiliary vector, initial stack.

Rule: pure.  Nothing here opens, maps or allocates; a hostile file costs at most 64 KiB of program headers and ends in
a `LoadError`, whose errno is execve(2)'s and whose sentence is for the command line.
"""
