"""What each exchange pushes by time, not by print: a module of the same name as in `exchanges`."""
