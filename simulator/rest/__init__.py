"""The HTTP side of each exchange: a module of the same name as in `exchanges`."""
