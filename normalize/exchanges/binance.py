"""Binance spot: frames to records."""
