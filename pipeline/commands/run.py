"""`pipeline run`: one process in the foreground, as supervisord starts it. Logs to stderr, one line per event."""

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import uvloop

from pipeline import settings as settings_module
from pipeline.errors import ServerAway, SettingsError, TapelineError
from pipeline.heartbeat import Heartbeat
from pipeline.installation import refuse_foreign_names
from pipeline.parent import fall_with_parent, name_process, watch_parent
from pipeline.progress import publish
from pipeline.readiness import Readiness
from pipeline.servers import launch, postgres, redis
from pipeline.servers.folders import run_folder
from pipeline.settings import LoggingSettings, Settings
from pipeline.stanzas import socket_of
from pipeline.supervisor import Fault, Supervisor
from pipeline.watchdog import Watchdog

STAGES = ("ingest", "normalize", "aggregate", "store")
STOP_DEADLINE = 12.0
"""Seconds a stage may take to finish its step; supervisord kills after 15."""
SETTINGS_RETRY = 5.0
OBJECTS_OF_STEPS = 20_000
"""More than a step makes and drops again. Python would look for cycles among them at each 700: a sixth of the work."""

Run = Callable[[Settings, str, asyncio.Event], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


@click.command()
@click.argument("name")
@click.pass_context
def run(ctx: click.Context, name: str) -> None:
    """Run one process in the foreground: redis, postgres, watchdog, ingest-okx, normalize-okx, aggregate-0, store-0.

    This is what supervisord starts; it ends with its parent.

    \b
    Examples:
      pipeline run ingest-okx
      pipeline run redis
    """
    name_process(name)
    if name not in ("redis", "postgres"):
        # First of all: a process frozen before this would outlive its parent.
        fall_with_parent(signal.SIGTERM)
    if name == "watchdog":
        _run_watchdog(ctx.obj)
        return
    settings = settings_module.load(ctx.obj)
    start_logging(name, settings.file.logging)
    if name in ("redis", "postgres"):
        _run_server(name, settings)
    stage = name.partition("-")[0]
    if stage not in STAGES or name not in settings.processes():
        raise SettingsError(f"no process {name!r} in {settings.path}: known are {' '.join(settings.processes())}")
    run_folder(settings)
    stage_run = importlib.import_module(f"{stage}.main").run
    gc.freeze()
    gc.set_threshold(OBJECTS_OF_STEPS)
    _end(_run_stage(stage_run, settings, name))


def start_logging(name: str, logging_settings: LoggingSettings) -> None:
    """One line per event on stderr: time (UTC), level, process, module, text."""
    level = "WARNING" if logging_settings.log_errors_only else logging_settings.level
    line = f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s"
    formatter = logging.Formatter(line, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    stream = logging.StreamHandler()
    stream.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[stream], force=True)
    if logging_settings.verbose_data_logging:
        logging.getLogger("pipeline.worker").setLevel("DEBUG")


def _run_server(name: str, settings: Settings) -> None:
    """Prepares the private server and becomes it."""
    given = settings.redis_url if name == "redis" else settings.database_url
    if given is not None:
        raise SettingsError(f"the settings name a {name} of their own ({settings_module.redacted(given)})")
    launch.become((redis if name == "redis" else postgres).prepare(settings))


async def _run_stage(work: Run, settings: Settings, name: str) -> int:
    """Runs the stage until it is told to stop and has finished its step. Returns the exit code."""
    stop = _stop_on_signals()
    parent = asyncio.create_task(watch_parent(stop))
    worker = asyncio.create_task(work(settings, name, stop))
    stopped = asyncio.create_task(stop.wait())
    copying = asyncio.create_task(publish(settings, name))
    await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
    told = stop.is_set()
    await asyncio.wait({worker}, timeout=STOP_DEADLINE)
    late = not worker.done()
    for task in (worker, parent, stopped, copying):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await worker
    if late:
        log.error("did not finish its step within %g s of being told to stop", STOP_DEADLINE)
    elif not told:
        log.error("ended without being told to")
    return 0 if told and not late else 1


def _run_watchdog(given: Path | None) -> None:
    start_logging("watchdog", LoggingSettings())
    settings = _settings_of_watchdog(given)
    start_logging("watchdog", settings.file.logging)
    run_folder(settings)
    _end(_watch(settings, _supervisor(settings)))


async def _watch(settings: Settings, supervisor: Supervisor) -> int:
    from store.prepare import prepare  # the one thing the watchdog needs of a stage

    stop = _stop_on_signals()
    heartbeat = Heartbeat("watchdog", settings.heartbeat_dir)
    watchdog = Watchdog(settings, supervisor, Readiness(settings, prepare, heartbeat), heartbeat)
    parent, beating = asyncio.create_task(watch_parent(stop)), asyncio.create_task(heartbeat.run())
    watching = asyncio.create_task(watchdog.run(stop))
    try:
        await asyncio.wait({watching, beating}, return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            beating.result()
        await watching
    finally:
        for task in (parent, beating, watching):
            task.cancel()
        await asyncio.gather(parent, beating, watching, return_exceptions=True)
    return 0


def _settings_of_watchdog(given: Path | None) -> Settings:
    """The settings. When they cannot be used at the first start, says so on supervisord's terminal and ends
    supervisord; when processes run already, they go on while we wait for better settings."""
    told = ""
    while True:
        try:
            settings = settings_module.load(given)
            refuse_foreign_names()
            _check_instance(settings)
            return settings
        except SettingsError as error:
            if str(error) != told:
                told = str(error)
                _tell_supervisor(told)
            time.sleep(SETTINGS_RETRY)


def _tell_supervisor(text: str) -> None:
    log.error("%s", text)
    url = os.environ.get("SUPERVISOR_SERVER_URL")
    if not url:
        raise SettingsError(text)
    supervisor = Supervisor(Path(url.removeprefix("unix://")))
    try:
        supervisor.say(f"pipeline: {text}")
        programs = supervisor.programs()
        if not any(program.start for name, program in programs.items() if name != "watchdog"):
            supervisor.shutdown()
    except (ServerAway, Fault) as error:
        log.warning("cannot tell supervisord: %s", error)


def _check_instance(settings: Settings) -> None:
    """Our supervisord must be the instance's own: others look for it in the run folder."""
    url = os.environ.get("SUPERVISOR_SERVER_URL")
    if url and Path(url.removeprefix("unix://")).resolve() != socket_of(settings).resolve():
        raise SettingsError(f"{settings.path} means the instance in {settings.state_dir}: start it with `pipeline up`")


def _supervisor(settings: Settings) -> Supervisor:
    return Supervisor(socket_of(settings))


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _end(work: Coroutine[Any, Any, int]) -> None:
    """Runs to the end of the process. This is the process's edge: what gets here is logged, whatever it is."""
    try:
        code = uvloop.run(work)
    except SettingsError:
        raise
    except TapelineError as error:
        log.error("%s: %s", type(error).__name__, error)
        code = 1
    except Exception:
        log.exception("a fault of ours")
        code = 1
    sys.exit(code)
