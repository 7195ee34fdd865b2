"""The command line: one file a command, and the one place that may import stages and simulator."""
