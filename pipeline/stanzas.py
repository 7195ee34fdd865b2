"""Which supervisord.conf an instance runs on: the committed file, or a copy with its own folders.

The copy is for another state folder, another environment, an installed wheel, or a path too long for a
socket. It is rewritten at every `up`.
"""

import configparser
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pipeline
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.supervisor import SOCKET_NAME


def committed() -> Path:
    """The file as it came: in the checkout, or inside the installed package."""
    package = Path(pipeline.__file__).parent
    for path in (package.parent / "supervisord.conf", package / "supervisord.conf"):
        if path.is_file():
            return path
    raise SettingsError(f"supervisord.conf is missing: it should be beside {package}")


def socket_of(settings: Settings) -> Path:
    """Where this instance's supervisord listens."""
    return settings.run_dir / SOCKET_NAME


def configuration(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The file to start supervisord on; a copy is written where one is needed. Raises SettingsError."""
    source = committed()
    if _fits(source, settings):
        return source
    target = settings.state_dir / "supervisord.conf"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_text(render(source.read_text(), settings, environ))
    os.replace(fresh, target)
    return target


def render(text: str, settings: Settings, environ: Mapping[str, str]) -> str:
    """The file's text with this instance's folders, sockets and PATH."""
    folders = {
        "%(here)s/var/run": settings.run_dir,
        "%(here)s/var/log": settings.log_dir,
        "%(here)s": settings.project,
    }
    for folder in folders.values():
        _check_path(folder)
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(text)
    for section in parser.sections():
        for option, value in parser.items(section):
            for shown, folder in folders.items():
                value = value.replace(shown, str(folder))  # noqa: PLW2901
            parser.set(section, option, value)
    parser.set("supervisord", "environment", _environment(environ))
    written = io.StringIO("")
    parser.write(written)
    return f"; Written by `pipeline up` from {committed()}; changes here are lost.\n{written.getvalue()}"


def _fits(source: Path, settings: Settings) -> bool:
    """Whether the committed file means this very instance."""
    here = source.parent
    same_folders = settings.state_dir == here / "var" and settings.run_dir == here / "var" / "run"
    return same_folders and Path(sys.prefix) == here / ".venv"


def _environment(environ: Mapping[str, str]) -> str:
    """Programs by the environment this command runs in; secrets are inherited, never written."""
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), environ.get("PATH", os.defpath)])
    _check_path(Path(path))
    return f'PATH="{path}",PYTHONSAFEPATH="1",PYTHONUNBUFFERED="1"'


def _check_path(path: Path) -> None:
    for sign in ("%", '"', "\n"):
        if sign in str(path):
            raise SettingsError(f"supervisord cannot work with {sign!r} in a path: {path}")
