"""How full Redis is."""

from pipeline.wire import Wire, check


async def memory_share(wire: Wire) -> float:
    """Used memory as a share of `maxmemory`; 0 where there is no limit. Works on a full Redis too."""
    text: bytes = check((await wire.call(("INFO", "memory")))[0])
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    most = int(facts["maxmemory"])
    return int(facts["used_memory"]) / most if most else 0.0
