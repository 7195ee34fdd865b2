"""The parts of `pipeline demo`: its instance, its two children, the blows it deals, settling, the view, the rows."""
