"""The parts of `pipeline replay`."""
