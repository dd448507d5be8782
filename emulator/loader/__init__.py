"""From a program's bytes to its first instruction: ELF, auxv, initial stack.  Pure: it maps nothing by itself."""
