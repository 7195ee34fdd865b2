"""Reads the facts of servers for status and health: one module a server, each bounded in time, none ever writes."""
