"""Faults on the way to Redis and Postgres: connections cut, stalled, replies lost; and Redis filled from outside.

The private servers are reached by unix sockets. A proxy of ours takes the socket's place for a while, and is gone
when the fault is over.
"""

import contextlib
import os
from pathlib import Path

import redis.exceptions

from pipeline.commands._chaos.fault import Fault
from pipeline.commands._chaos.plan import SUPERVISORD
from pipeline.commands._chaos.proxy import Proxy
from pipeline.commands._demo.instance import NAMESPACE
from pipeline.errors import ServerAway
from pipeline.probes import redis as redis_probe

LEAD = 1.0
"""Seconds in which everybody connects through the proxy before anything happens."""
LINGER = 1.0
JUNK = f"not{NAMESPACE}:junk"
SIZES = (256 * 1024, 4 * 1024, 64)
CHUNKS = 64
"""Written at most in one turn."""
MOST_CHUNKS = 8_192
_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""


class OfServer(Fault):
    """Two faults never touch the same server."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.planned.target})

    def cut_all(self) -> None:
        """The server itself closes every connection. Raises ServerAway."""
        if self.planned.target == "redis":
            with self.scene.redis() as client:
                redis_probe.call(client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        else:
            with self.scene.postgres() as connection:
                connection.execute(_CUT)


class Cut(OfServer):
    """Every connection to the server is closed, at whatever point its work is."""

    def begin(self) -> bool:
        self.cut_all()
        return True


class Tapped(OfServer):
    """A proxy takes the place of the server's socket and everybody has to connect anew, through it."""

    _harming = False

    @property
    def touches(self) -> frozenset[str]:
        # Which socket the server listens at must not change meanwhile.
        return frozenset({self.planned.target, SUPERVISORD})

    def begin(self) -> bool:
        path = self._socket()
        self._aside, new = path.with_name("direct"), path.with_name("new")
        self._aside.unlink(missing_ok=True)
        try:
            os.link(path, self._aside)
        except FileNotFoundError:
            return False
        self._proxy = Proxy(self._aside, listen=new).start()
        self._ours = new.stat().st_ino
        try:
            os.replace(new, path)
            self.cut_all()
        except (OSError, ServerAway):
            self.end()
            raise
        return True

    def over(self, elapsed: float) -> bool:
        if not self._harming and elapsed >= LEAD:
            self._harming = True
            self.harm()
        return elapsed >= LEAD + self.planned.seconds

    def end(self) -> None:
        self.heal()
        path = self._socket()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == self._ours:
                os.replace(self._aside, path)
            self._aside.unlink()
        # What still hangs on the proxy is cut once the delayed bytes had time to arrive.
        self.scene.retire(self._proxy, LINGER)

    def harm(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        raise NotImplementedError

    def _socket(self) -> Path:
        folder = self.scene.settings.run_dir
        if self.planned.target == "redis":
            return folder / "redis.sock"
        return folder / "postgres" / f".s.PGSQL.{self.scene.settings.file.postgres.port}"


class Stall(Tapped):
    """No byte passes; then all that waited arrives, late, from clients that may have given up and connected anew."""

    def harm(self) -> None:
        self._proxy.stall()

    def heal(self) -> None:
        self._proxy.stall(False)


class Deaf(Tapped):
    """Requests arrive and are obeyed, the replies get lost, and then the connection is cut."""

    def harm(self) -> None:
        self._proxy.swallow()

    def heal(self) -> None:
        self._proxy.cut()
        self._proxy.swallow(False)


class Fill(OfServer):
    """Somebody else fills Redis to maxmemory, again and again whatever the product frees, until the fault is over."""

    def begin(self) -> bool:
        self._written = 0
        # It stays connected: what its connection costs the server would be free again otherwise.
        self._client = redis_probe.connect(self.scene.settings, timeout=2.0)
        try:
            self._fill()
        except (redis.exceptions.RedisError, OSError):
            self._client.close()
            return False
        return True

    def over(self, elapsed: float) -> bool:
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            self._fill()
        return super().over(elapsed)

    def end(self) -> None:
        self._client.close()
        with self.scene.redis() as client:
            redis_probe.call(client, "UNLINK", JUNK)

    def _fill(self) -> None:
        """Writes what a turn may, in ever smaller entries, until the server refuses."""
        for size in SIZES:
            with contextlib.suppress(redis.exceptions.OutOfMemoryError):
                for _ in range(CHUNKS if self._written < MOST_CHUNKS else 0):
                    redis_probe.call(self._client, "XADD", JUNK, "*", "data", bytes(size))
                    self._written += 1
