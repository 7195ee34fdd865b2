"""The parts of `pipeline exchanges`."""
