"""`pipeline simulate` as a process: the ready line, signals, refusals."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from pipeline.exchanges import EXCHANGES
from simulator.truth import read_truth
from tests.simulator.clients import PATIENCE

PROGRAM = "from pipeline.commands.simulate import simulate; simulate(prog_name='pipeline simulate')"


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_serves_until_a_signal(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = await start("--json", "--rate", "500", "--truth", str(tmp_path / "proof"))
    assert process.stdout is not None
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
    assert ready.keys() == {"ws_url", "rest_url", "control_url", "pid"}
    assert ready["pid"] == process.pid
    async with (
        aiohttp.ClientSession() as session,
        session.post(ready["control_url"], json={"pause": True}) as answer,
    ):
        printed = (await answer.json())["state"]["printed"]
    process.send_signal(number)
    assert (await finish(process))[0::2] == (code, "")
    assert len(list(read_truth(tmp_path / "proof"))) == printed


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_every_exchange_is_served_with_its_books(exchange: str) -> None:
    process = await start("--json", "--exchange", exchange, "--symbols", "2")
    assert process.stdout is not None
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
    async with aiohttp.ClientSession() as session, session.get(f"{ready['control_url']}/books?depth=3") as answer:
        books = (await answer.json())["books"]
    assert any(name.startswith("SIM002") for name in books)
    assert {len(book["asks"]) for book in books.values()} == {3}
    process.send_signal(signal.SIGINT)
    assert (await finish(process))[0::2] == (130, "")


async def test_for_ends_by_itself() -> None:
    code, out, err = await finish(await start("--for", "0.2s"))
    assert (code, err) == (0, "")
    assert "ws://127.0.0.1:" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--for", "soon"], "length of time"),
        (["--exchange", "nowhere"], "no exchange nowhere"),
        (["--faults", "missing.jsonl"], "missing.jsonl"),
        (["--rate", "-1"], "rate"),
    ],
)
async def test_impossible_wishes_exit_2(arguments: list[str], said: str) -> None:
    code, out, err = await finish(await start(*arguments))
    assert (code, out) == (2, "")
    assert said in err


async def test_help_has_examples() -> None:
    code, out, _ = await finish(await start("--help"))
    assert code == 0
    assert "pipeline simulate --rate 500 --symbols 100 --for 10m" in out
