"""A Redis whose disk can be made slow to sync: a library loaded into it delays fsync while a file is there.

Built with the C compiler of the machine, on Linux; without one there is no such fault.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.servers.binary import REDIS_VARIABLE, find_redis

DELAY_US = 1_500_000
_SOURCE = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void delay(void) {
    const char *mark = getenv("SLOWDISK_MARK");
    if (mark && access(mark, F_OK) == 0) usleep(%d);
}
int fsync(int file) { delay(); return (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { delay(); return (int)syscall(SYS_fdatasync, file); }
"""
_SCRIPT = """#!/bin/sh
# By its name and a folder: the loader splits a path at spaces.
LD_LIBRARY_PATH={folder} LD_PRELOAD=slowdisk.so SLOWDISK_MARK={mark} exec {server} "$@"
"""


class SlowDisk:
    """In `folder`, which it makes. `environment` makes the product run the Redis that can be slowed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._script = folder / "redis-server"
        self._mark = folder / "slow"

    def build(self, environ: Mapping[str, str]) -> bool:
        """Whether it could be built here."""
        compiler = shutil.which("cc", path=environ.get("PATH"))
        if sys.platform != "linux" or compiler is None:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        source, library = self._folder / "slowdisk.c", self._folder / "slowdisk.so"
        source.write_text(_SOURCE % DELAY_US)
        words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
        if subprocess.run(words, capture_output=True, check=False, timeout=60).returncode:
            return False
        try:
            server = find_redis(self._folder / "no record", environ).path
        except SettingsError:
            return False
        parts = {"folder": self._folder, "mark": self._mark, "server": server}
        self._script.write_text(_SCRIPT.format(**{name: shlex.quote(str(part)) for name, part in parts.items()}))
        self._script.chmod(0o755)
        return True

    @property
    def environment(self) -> dict[str, str]:
        """Empty where it was not built."""
        return {REDIS_VARIABLE: str(self._script)} if self.built else {}

    @property
    def built(self) -> bool:
        return os.access(self._script, os.X_OK)

    def slow(self, wanted: bool) -> None:
        """From now on, until false, each sync of the server takes 1.5 s longer."""
        if wanted:
            self._mark.touch()
        else:
            self._mark.unlink(missing_ok=True)
