"""Trades to candles. Never touches network, local clock or Postgres."""
