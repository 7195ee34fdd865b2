"""Whom Postgres runs as, since it refuses root, and whether that user can reach a path.

Never makes users and never opens folders that are closed: what cannot be reached is copied.
"""

import os
import pwd
from pathlib import Path

import msgspec

from pipeline.errors import SettingsError

PREFERRED = ("postgres", "nobody")


class Account(msgspec.Struct, frozen=True):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account_of(uid: int) -> Account:
    """Raises SettingsError when the user has no entry in the user database: initdb and supervisord need one."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise SettingsError(
            f"user id {uid} has no name on this machine and Postgres refuses to run without one: add it to "
            "/etc/passwd, or set DATABASE_URL to use a server of your own"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def choose(configured: str | None, data: Path) -> Account:
    """The owner of the data where there are some, else ourselves, or when we are root: the configured user,
    `postgres` or `nobody`. Raises SettingsError."""
    owner = account_of(data.stat().st_uid) if data.exists() else None
    if os.getuid():
        if owner and owner.uid != os.getuid():
            raise SettingsError(f"{data} belongs to {owner.name}: run as {owner.name}, or choose another state_dir")
        return account_of(os.getuid())
    wanted = _named(configured) if configured else next(filter(None, map(_existing, PREFERRED)), None)
    if owner and configured and wanted != owner:
        raise SettingsError(f"postgres.user is {configured} but {data} belongs to {owner.name}")
    if found := owner or wanted:
        if found.uid == 0:
            raise SettingsError("Postgres refuses to run as root: set postgres.user to another user")
        return found
    raise SettingsError("Postgres refuses to run as root and there is no user postgres or nobody: set postgres.user")


def reachable(path: Path, account: Account) -> bool:
    """Whether the account may enter every folder down to `path` (by mode bits)."""
    return all(_may_enter(folder, account) for folder in (path, *path.parents) if folder.is_dir())


def _may_enter(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if account.uid in (0, status.st_uid):
        return account.uid == 0 or bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == account.gid else 0o001))


def _existing(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _named(name: str) -> Account:
    if found := _existing(name):
        return found
    raise SettingsError(f"postgres.user: there is no user {name!r} on this machine")
