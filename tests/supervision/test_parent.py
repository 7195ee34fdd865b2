"""Falling with the parent, also where the kernel does not do it; names and stanzas of an instance."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import SettingsError
from pipeline.parent import alive, command_of, parent_of
from pipeline.shutdown import tier_of
from pipeline.stanzas import committed, render
from tests.servers import wait_until
from tests.supervision.instance import ROOT, Instance

GUARDED = """
import os, sys, time
from pipeline.parent import guard
import signal
guard(os.getpid(), os.getppid(), signal.SIGTERM)
print(os.getpid(), flush=True)
time.sleep(120)
"""
PARENT = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]])\nsys.stdin.read()"


def test_a_guard_ends_the_process_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, GUARDED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent_of(pid) == parent.pid
        assert alive(pid)
        parent.kill()
    wait_until(lambda: not alive(pid), "the guarded process to be ended")


def test_what_is_known_of_a_process() -> None:
    assert alive(os.getpid())
    assert parent_of(os.getpid()) == os.getppid()
    assert "python" in command_of(os.getpid()) or "pytest" in command_of(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until(lambda: not alive(process.pid), "the zombie to count as gone")
    assert parent_of(process.pid) == 0
    assert command_of(process.pid) == ""


def test_the_order_of_stopping() -> None:
    names = ["redis", "store-0", "ingest-okx", "postgres", "normalize-okx", "watchdog", "aggregate-0"]
    ordered = ["watchdog", "ingest-okx", "normalize-okx", "aggregate-0", "store-0"]
    assert sorted(names, key=tier_of)[:5] == ordered


def test_the_committed_file_has_a_stanza_for_every_process_of_the_default_settings() -> None:
    given = settings.complete(settings.default_file(), Path("/clone/config/data_collection.json"), {})
    text = committed().read_text()
    for name in ("watchdog", *given.processes()):
        assert f"[program:{name}]\ncommand=pipeline run {name}\n" in text


def test_a_rendered_file_names_only_the_instance_and_no_secret() -> None:
    with Instance(environ={"REDIS_URL": "redis://:hunter2@localhost/0", "PATH": "/usr/bin"}) as instance:
        given = instance.settings
        text = render(committed().read_text(), given, instance.environ)
    assert "%(here)s" not in text
    assert "hunter2" not in text
    assert f"file = {given.run_dir}/supervisor.sock" in text
    assert f"stdout_logfile = {given.log_dir}/ingest-okx.log" in text
    assert f'PATH="{sys.prefix}/bin{os.pathsep}/usr/bin"' in text


def test_a_path_supervisord_cannot_work_with_is_refused(tmp_path: Path) -> None:
    strange = tmp_path / "100%" / "config" / "data_collection.json"
    given = settings.complete(settings.default_file(), strange, {})
    with pytest.raises(SettingsError, match="'%'"):
        render(committed().read_text(), given, {})


def test_signals_are_the_ones_supervisord_sends() -> None:
    text = committed().read_text()
    stanza = text[text.index("[program:postgres]") : text.index("[program:store-0]")]
    assert f"stopsignal={signal.SIGINT.name.removeprefix('SIG')}" in stanza
