"""The published log, checked by programs that we did not write, after real calls went through Writ."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time

from harness import peers, servers, tlog, transcript
from harness.processes import run
from harness.record import scenario
from harness.writ import PROGRAM, Writ


@scenario("log: golang.org/x/mod and aics-tlog verify it")
def foreign(stage):
    plan = servers.plan("helpdesk", stage.folder)
    with servers.helpdesk(stage.folder) as server:
        with Writ(stage.folder, {"helpdesk": server.url}) as writ:
            with writ.way_in("helpdesk") as way_in:
                transcript.walk("ts", plan, ["http", way_in.url])
            log = writ.folder / "data" / "log"
            old = stage.folder / "old-checkpoint"
            shutil.copy(log / "checkpoint", old)
            with writ.way_in("helpdesk") as way_in:
                transcript.walk("python", plan, ["http", way_in.url])
        key = (writ.folder / "data" / "keys" / "log.vkey").read_text().strip()
    tlog.foreign_verify(log, key, old, 10)
    own = run([PROGRAM, "audit", "verify", log, "--key", key], check=False)
    assert own.returncode in (0, 3), f"writ audit verify: {own.stdout}{own.stderr}"
    copy = _tampered(log, stage.folder)
    for command in (tlog.check(copy, key), [PROGRAM, "audit", "verify", copy, "--key", key]):
        assert run(command, check=False).returncode == 1, f"{command[0]} accepted a changed entry"


@scenario("log: golang.org/x/mod and aics-tlog verify what the library wrote", quick=True)
def library(stage):
    for entries in (1, 255, 256, 700):
        log, old = stage.folder / f"log-{entries}", stage.folder / f"old-{entries}"
        write = servers.BINARIES / "examples" / "write_log"
        key = run([write, log, entries, *([old] if entries > 1 else [])]).stdout.strip()
        tlog.foreign_verify(log, key, old if entries > 1 else log / "checkpoint", entries)
    assert run(tlog.check(_tampered(log, stage.folder), key), check=False).returncode == 1, "a changed entry was accepted"


def _tampered(log, folder):
    """The same log with one bit of one entry changed."""
    copy = folder / "tampered"
    shutil.copytree(log, copy)
    *_, bundle = tlog.bundles(copy)
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(content)
    return copy


KILLS = int(os.environ.get("WRIT_E2E_KILLS", "40"))


@scenario("log: a killed server loses no entry of a call that was forwarded")
def killed(stage):
    """Calls run without pause while the server is killed again and again. Whatever the upstream received must stand
    in the log, and the log must verify, after each of it."""
    database = stage.folder / "helpdesk.db"
    with servers.helpdesk(stage.folder, database) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url})
        with writ:
            pass
        storm = [peers.node(), peers.npm() / "clients" / "storm.mjs", writ.job("helpdesk"), 8]
        calls = subprocess.Popen([str(word) for word in storm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            for _ in range(KILLS):
                writ.service.__enter__()
                # Any moment of a call will do: the kill is not aimed.
                time.sleep(random.uniform(0.02, 0.4))
                writ.service.stop(how=signal.SIGKILL)
            writ.service.__enter__()
            time.sleep(0.5)
            counts = json.loads(calls.communicate("", timeout=60)[0])
            writ.service.stop()
        finally:
            calls.kill()
    assert counts["answered"] > KILLS, f"hardly a call got through: {counts}"
    with sqlite3.connect(database) as records:
        received = {body for (body,) in records.execute("SELECT body FROM replies")}
    log = writ.folder / "data" / "log"
    key = (writ.folder / "data" / "keys" / "log.vkey").read_text().strip()
    tlog.foreign_verify(log, key, log / "checkpoint", len(received))
    tlog.holds_all(log, received)
    tlog.own_verify(log, key)
