"""Exchanges on loopback, in their own protocols, from one seeded synthetic market."""
