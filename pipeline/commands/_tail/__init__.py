"""The parts of `pipeline tail`."""
