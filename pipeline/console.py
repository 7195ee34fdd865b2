"""Runs inside supervisord: says a line on its terminal, and holds back the restarts of a process.

A child cannot do the first: its output goes to a file, and the terminal may be a pipe, a file or
journald's socket, which cannot be opened a second time. Standard library only.
"""

from typing import Any


class ConsoleInterface:
    """The XML-RPC methods `tapeline.say` and `tapeline.autorestart`."""

    def __init__(self, supervisord: Any) -> None:
        self._supervisord = supervisord
        self._before: dict[str, Any] = {}

    def say(self, text: str) -> bool:
        """Prints the line where supervisord prints, and writes it to its log."""
        self._supervisord.options.logger.critical(text)
        return True

    def autorestart(self, name: str, wanted: bool) -> bool:
        """Whether supervisord itself restarts the process when it exits; false where there is no such process."""
        group = self._supervisord.process_groups.get(name)
        process = group.processes.get(name) if group else None
        if process is None:
            return False
        before = self._before.setdefault(name, process.config.autorestart)
        process.config.autorestart = before if wanted else False
        return True


def make_interface(supervisord: Any, **_: Any) -> ConsoleInterface:
    """supervisord calls this for `[rpcinterface:tapeline]`."""
    return ConsoleInterface(supervisord)
