"""Recording and replay: log, checkpoints, timeline."""
