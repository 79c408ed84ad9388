"""The published log, checked by programs that we did not write, after real calls went through Writ."""

import shutil

from harness import peers, servers, transcript
from harness.processes import run
from harness.record import scenario
from harness.writ import PROGRAM, Writ


@scenario("log: golang.org/x/mod and aics-tlog verify it")
def foreign(stage):
    plan = servers.plan("helpdesk", stage.folder)
    with servers.helpdesk(stage.folder) as server:
        with Writ(stage.folder, {"helpdesk": server.url}) as writ:
            with writ.injector("helpdesk") as way_in:
                transcript.walk("ts", plan, ["http", way_in.url])
            log = writ.folder / "data" / "log"
            old = stage.folder / "old-checkpoint"
            shutil.copy(log / "checkpoint", old)
            with writ.injector("helpdesk") as way_in:
                transcript.walk("python", plan, ["http", way_in.url])
        key = (writ.folder / "data" / "keys" / "log.vkey").read_text().strip()
    _foreign_verify(log, key, old, 10)
    own = run([PROGRAM, "audit", "verify", log, "--vkey", key], check=False)
    assert own.returncode in (0, 3), f"writ audit verify: {own.stdout}{own.stderr}"
    copy = _tampered(log, stage.folder)
    for command in (_check(copy, key), [PROGRAM, "audit", "verify", copy, "--vkey", key]):
        assert run(command, check=False).returncode == 1, f"{command[0]} accepted a changed entry"


@scenario("log: golang.org/x/mod and aics-tlog verify what the library wrote", quick=True)
def library(stage):
    for entries in (1, 255, 256, 700):
        log, old = stage.folder / f"log-{entries}", stage.folder / f"old-{entries}"
        write = servers.BINARIES / "examples" / "write_log"
        key = run([write, log, entries, *([old] if entries > 1 else [])]).stdout.strip()
        _foreign_verify(log, key, old if entries > 1 else log / "checkpoint", entries)
    assert run(_check(_tampered(log, stage.folder), key), check=False).returncode == 1, "a changed entry was accepted"


def _check(log, key, *old):
    return [peers.tlog_checker(), log, key, *old]


def _foreign_verify(log, key, old, at_least):
    said = run(_check(log, key, old)).stdout.split()
    size = int(said[2])
    assert said[0] == "ok" and size >= at_least, said
    tool, source = peers.tlog_tool(), ["--log-key", key, "--tiles", log]
    run([tool, "verify-checkpoint", *source])
    run([tool, "verify-consistency", "--old-checkpoint", old, *source])
    for index in sorted({0, size // 2, size - 1}):
        run([tool, "verify-inclusion", "--index", index, *source])


def _tampered(log, folder):
    """The same log with one bit of one entry changed."""
    copy = folder / "tampered"
    shutil.copytree(log, copy)
    bundle = next(path for path in sorted((copy / "tile" / "entries").rglob("*")) if path.is_file())
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(content)
    return copy
