"""What must be saved of frames that are dropped. Pure."""

from pipeline.frames import Frame


class Salvage:
    """What outlives a dropped entry, because all later frames are read by it: connections opening and closing,
    subscriptions, lists of instruments. Of a connection that is gone, at most its end is kept."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, ...], Frame] = {}

    def save(self, frame: Frame) -> bool:
        """Whether the frame is (or was, until its connection closed) worth keeping."""
        if frame.kind == "rest":
            if frame.key is not None:
                # The answer to a want: after a loss the want is renewed.
                return False
            self._put(("rest", frame.url or frame.conn), frame)
        elif frame.kind == "open":
            self._put((frame.conn, "open"), frame)
        elif frame.kind == "subscription":
            self._put((frame.conn, "subscription", frame.data), frame)
        elif frame.kind == "close":
            self._close(frame)
        else:
            return False
        return True

    def take(self) -> list[Frame]:
        """The frames in order; none are left."""
        frames = list(self._frames.values())
        self._frames.clear()
        return frames

    def _put(self, key: tuple[str, ...], frame: Frame) -> None:
        self._frames.pop(key, None)
        self._frames[key] = frame

    def _close(self, frame: Frame) -> None:
        opened = (frame.conn, "open") in self._frames
        for key in [key for key in self._frames if key[0] == frame.conn]:
            del self._frames[key]
        if not opened:
            self._put((frame.conn, "close"), frame)
