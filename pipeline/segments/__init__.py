"""Records on disk, in order, bounded: appended at the back, drained from the front. Blocking: callers use a thread.

What `append` returned from survives the death of the process (SIGKILL included); what `sync` returned from
survives the loss of power. A power loss can take what was appended after the last `sync`, nothing older.
Files are of mode 0600 in a folder of mode 0700; one process at a time holds the folder (flock).
"""

from pipeline.segments.drain import Stored
from pipeline.segments.file import Position
from pipeline.segments.folder import DiskFull, Segments, SegmentsFull, SegmentsInUse

__all__ = ["DiskFull", "Position", "Segments", "SegmentsFull", "SegmentsInUse", "Stored"]
