"""The parts of `pipeline symbols`."""
