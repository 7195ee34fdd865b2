"""Binance spot as its servers speak it. Strict, sans-I/O, no clock."""
