"""Sockets and REST to raw frames, stamped on arrival. Never parses market data."""
