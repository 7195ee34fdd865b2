"""The process `ingest-binance` with intervals that let a test wait for daily files: python -m tests.integration.filing
SETTINGS."""

import asyncio
import sys
from pathlib import Path

import ingest.main
from ingest.timing import MILLISECOND, Timing
from pipeline.settings import load
from pipeline.timeframes import SECOND

NAME = "ingest-binance"
TIMING = Timing(
    file_over=20 * SECOND,
    file_retry=SECOND,
    file_pace=100_000,
    redis_pause=100 * MILLISECOND,
    first_delay=100 * MILLISECOND,
)


if __name__ == "__main__":
    asyncio.run(ingest.main.run(load(Path(sys.argv[1])), NAME, asyncio.Event(), TIMING))
