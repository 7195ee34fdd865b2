"""The parts of `pipeline status`."""
