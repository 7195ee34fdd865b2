"""A pause that ends early when the process is told to stop."""

import asyncio


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """Waits for `seconds` or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
