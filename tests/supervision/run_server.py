"""Becomes a private server as another user: `run_server.py SETTINGS redis|postgres UID GID SYSTEM_FOLDER`.

The change of user comes after the imports, since the interpreter may lie where that user cannot go.
"""

import logging
import os
import sys
from pathlib import Path

from pipeline import settings
from pipeline.servers import folders, launch, postgres, redis


def main() -> None:
    path, name, uid, gid, system = sys.argv[1:]
    logging.basicConfig(level="INFO")
    folders.SYSTEM = Path(system)
    if os.getuid() == 0 and int(uid):
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    given = settings.load(Path(path))
    launch.become((redis if name == "redis" else postgres).prepare(given))


main()
