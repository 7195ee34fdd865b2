"""How each exchange spells market data: a module of the same name as in `exchanges`."""
