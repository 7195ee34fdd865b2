"""Folders of the private servers: private ones, and a place for a server whose user cannot reach ours.

A clone below a closed home (/root) stays closed: what the server needs goes to /var/lib/tapeline, and a
link in the state folder shows the way.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.servers.account import Account, reachable
from pipeline.settings import Settings

SYSTEM = Path("/var/lib/tapeline")


def private_folder(path: Path, account: Account | None = None) -> Path:
    """Makes the folder, closed to others, owned by the account. Raises SettingsError when it is another's."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise SettingsError(f"cannot make the folder {path}: {error.strerror}") from error
    else:
        if account and account.uid != os.getuid():
            os.chown(path, account.uid, account.gid)
    owner, expected = path.stat().st_uid, account.uid if account else os.getuid()
    if owner != expected and os.getuid():
        raise SettingsError(f"the folder {path} belongs to user id {owner}, not to us")
    return path


def run_folder(settings: Settings) -> Path:
    """The folder of sockets, locks and heartbeats, made when absent. Raises SettingsError when it is another's."""
    private_folder(settings.run_dir)
    outside = not settings.run_dir.is_relative_to(settings.state_dir)
    if outside and settings.run_dir.lstat().st_uid != os.getuid():
        # In a folder that everybody may write to, someone else could have made it first.
        raise SettingsError(f"the folder {settings.run_dir} was made by user id {settings.run_dir.lstat().st_uid}")
    private_folder(settings.heartbeat_dir)
    return settings.run_dir


def home_for(settings: Settings, account: Account) -> Path:
    """Where the account's data may lie: the state folder, or a folder of the system when it cannot get there."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    if reachable(settings.state_dir, account):
        return settings.state_dir
    _open_folder(SYSTEM)
    return _open_folder(system_home(settings))


def system_home(settings: Settings) -> Path:
    """Where the data of this state folder lie when the account cannot reach it; they outlive the folder."""
    return SYSTEM / _instance(settings)


def short_folder(settings: Settings, home: Path) -> Path:
    """A folder for sockets that every user may pass through: their whole path may have 103 bytes."""
    if len(os.fsencode(home)) <= 70:
        return home
    return _open_folder(Path("/run" if Path("/run").is_dir() else "/var/run") / f"tapeline-{_instance(settings)[-8:]}")


def _instance(settings: Settings) -> str:
    """A name for the instance that no other has."""
    return f"{settings.project.name}-{hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()[:8]}"


def _open_folder(path: Path) -> Path:
    """A folder of ours that others may enter, whatever the umask."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o755)
    return path


def link(shown: Path, actual: Path) -> None:
    """`shown` leads to `actual`, which is elsewhere. A link of an earlier run is replaced."""
    if shown.resolve() == actual.resolve():
        return
    if shown.is_symlink():
        shown.unlink()
    if shown.is_dir():
        shown.rmdir()
    shown.symlink_to(actual)


def reachable_copy(package: Path, name: str) -> Path:
    """A copy of a server's package where every user can reach it, with the libraries it finds beside it."""
    target = SYSTEM / name
    if not (target / package.name).is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=_open_folder(SYSTEM)))
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, fresh / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        for path in (fresh, *fresh.rglob("*")):
            # The original may have been installed for its owner alone.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            fresh.rename(target)
        except OSError:
            # Another instance was quicker.
            shutil.rmtree(fresh)
    return target / package.name
