"""The published log, checked by programs that we did not write, after real calls went through Writ."""

import json
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
        _verify(stage, log, key, old)
        _tamper(stage, log, key)


def _verify(stage, log, key, old):
    said = run([peers.tlog_checker(), log, key, old]).stdout.split()
    assert said[0] == "ok" and int(said[2]) > 10, said
    tool = peers.tlog_tool()
    size = int(said[2])
    for index in (0, size // 2, size - 1):
        run([tool, "verify-inclusion", "--index", index, "--checkpoint", log / "checkpoint", "--log-key", key, "--tiles", log])
    own = run([PROGRAM, "audit", "verify", log, "--vkey", key, "--json"], check=False)
    assert own.returncode in (0, 3), f"writ audit verify: {own.stdout}{own.stderr}"


def _tamper(stage, log, key):
    """One bit of one entry: everybody must notice."""
    copy = stage.folder / "tampered"
    shutil.copytree(log, copy)
    bundle = next(path for path in sorted((copy / "tile" / "entries").rglob("*")) if path.is_file())
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(content)
    for command in ([peers.tlog_checker(), copy, key], [PROGRAM, "audit", "verify", copy, "--vkey", key]):
        assert run(command, check=False).returncode == 1, f"{command[0]} accepted a changed entry"
