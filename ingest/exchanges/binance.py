"""Binance spot: subscriptions, acknowledgements, keepalive and REST requests. Sans-I/O."""
