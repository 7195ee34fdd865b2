"""The private Postgres: user, data directory, configuration, command. Never touches another server's data.

As root it runs as another user; what we write for it stays in folders of ours, so that this user can
never lead root's hand.
"""

import logging
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec

from pipeline.errors import SettingsError
from pipeline.servers.account import Account, choose, reachable
from pipeline.servers.binary import Binary, find_postgres, write_record
from pipeline.servers.folders import home_for, link, private_folder, reachable_copy, run_folder, short_folder
from pipeline.servers.launch import Launch, check_port, lock
from pipeline.settings import Settings

SHARED_BUFFERS = "128MB"
SMALL_SHARED_MEMORY = 256 * 1024 * 1024

log = logging.getLogger(__name__)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are: `home` is ours, `folder` and `sockets` the account's."""

    account: Account
    home: Path
    folder: Path
    sockets: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"


def prepare(settings: Settings) -> Launch:
    """Locks the data, chooses user and server, makes the data directory. Raises SettingsError."""
    lock(settings.state_dir / "postgres.lock")
    account = choose(settings.file.postgres.user, settings.state_dir / "postgres")
    check_port(settings.file.postgres.port, "postgres.port")
    place = _place(settings, account)
    record = place.home / "postgres.json"
    binary = find_postgres(record)
    program = _reachable_program(binary, account)
    if not place.data.exists():
        _initialize(place, program)
    write_record(record, binary)
    configuration = place.home / "postgres.conf"
    configuration.write_text(configure(settings, place))
    configuration.chmod(0o644)
    command = (str(program), "-D", str(place.data), "-c", f"config_file={configuration}")
    return Launch(command=command, death=signal.SIGINT, account=account)


def home_of(settings: Settings) -> Path:
    """Where the data, their record and the password are: the state folder, or where its link leads."""
    return (settings.state_dir / "postgres").resolve().parent


def password_file(settings: Settings) -> Path:
    """The password of user postgres for connections over TCP; the socket asks for none."""
    return home_of(settings) / "postgres.password"


def configure(settings: Settings, place: Place) -> str:
    """postgresql.conf of this instance: initdb's own first, then ours; ALTER SYSTEM beats both."""
    options = {
        "data_directory": _quoted(place.data),
        "hba_file": _quoted(place.data / "pg_hba.conf"),
        "ident_file": _quoted(place.data / "pg_ident.conf"),
        "listen_addresses": "'127.0.0.1'",
        "port": str(settings.file.postgres.port),
        "unix_socket_directories": _quoted(f'"{place.sockets}"'),
        "unix_socket_permissions": "0700",
        "logging_collector": "off",
        "log_destination": "'stderr'",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "synchronous_commit": "on",
        "shared_buffers": SHARED_BUFFERS,
        "max_wal_size": "'2GB'",
    }
    if _shared_memory() < SMALL_SHARED_MEMORY:
        # Containers often have 64 MB there, which parallel queries overrun.
        options["dynamic_shared_memory_type"] = "mmap"
    head = (
        "# Written by `pipeline run postgres` at each start. Change a value with ALTER SYSTEM.\n"
        f"include = {_quoted(place.data / 'postgresql.conf')}\n"
    )
    return head + "".join(f"{name} = {value}\n" for name, value in options.items())


def _place(settings: Settings, account: Account) -> Place:
    home = home_for(settings, account)
    folder = private_folder(home / "postgres", account)
    shown_folder, shown_sockets = settings.state_dir / "postgres", run_folder(settings) / "postgres"
    _let_pass(settings, account)
    if home != settings.state_dir:
        log.warning("user %s cannot reach %s: its data are in %s", account.name, settings.state_dir, folder)
        link(shown_folder, folder)
    if reachable(settings.run_dir, account):
        sockets = private_folder(shown_sockets, account)
    else:
        sockets = private_folder(short_folder(settings, home) / "sockets", account)
        link(shown_sockets, sockets)
    return Place(account=account, home=home, folder=folder, sockets=sockets)


def _let_pass(settings: Settings, account: Account) -> None:
    """The run folder is ours and closed; another user's server only has to pass through it."""
    if account.uid != os.getuid() and reachable(settings.run_dir.parent, account):
        settings.run_dir.chmod(0o711)


def _reachable_program(binary: Binary, account: Account) -> Path:
    program = Path(binary.path)
    if reachable(program.parent, account):
        return program
    package = program.parent.parent
    inside = [program.name, "bin"]
    if package.name == "pginstall":
        package, inside = package.parent, [program.name, "bin", "pginstall"]
    copy = reachable_copy(package, f"postgres-{binary.version}")
    log.warning("user %s cannot reach %s: running the copy in %s", account.name, package, copy)
    return copy.joinpath(*reversed(inside))


def _initialize(place: Place, program: Path) -> None:
    """initdb, into a folder that gets its name only when it is whole."""
    fresh = place.folder / "data.new"
    if fresh.exists():
        shutil.rmtree(fresh)
    password = secrets.token_urlsafe(24)
    given, kept = place.home / ".postgres.password.new", place.home / "postgres.password"
    _write_secret(given, password, place.account)
    try:
        _run_as(place.account, [*_initdb(program), "-D", str(fresh), f"--pwfile={given}"])
    finally:
        given.unlink()
    _write_secret(kept, password, None)
    fresh.rename(place.data)
    log.info("made the database cluster in %s", place.data)


def _initdb(program: Path) -> list[str]:
    words = [str(program.parent / "initdb"), "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
    major = int(
        subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout.split()[2].split(".")[0]
    )
    portable = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else []
    return [*words, "--encoding=UTF8", "--locale=C", *portable]


def _run_as(account: Account, command: list[str]) -> None:
    """Runs to the end as the account. Raises SettingsError with what the program said."""
    change: dict[str, object] = {}
    if account.uid != os.getuid():
        change = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120, **change)  # type: ignore[call-overload]
    except OSError as error:
        raise SettingsError(f"cannot run {command[0]} as {account.name}: {error}") from error
    if done.returncode:
        raise SettingsError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")


def _write_secret(path: Path, text: str, account: Account | None) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        if account and account.uid != os.getuid():
            os.fchown(descriptor, account.uid, account.gid)


def _shared_memory() -> int:
    """Bytes of /dev/shm; plenty where there is none."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return SMALL_SHARED_MEMORY
    return status.f_blocks * status.f_frsize


def _quoted(value: Path | str) -> str:
    text = str(value).replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"
