"""The parts of `pipeline record`."""
