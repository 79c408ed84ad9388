"""The published log of a server, read and judged: by programs that we did not write, and entry by entry against what the
server says is so. Reads tile files only (C2SP tlog-tiles).
"""

import json
import re

from . import peers
from .processes import run
from .writ import PROGRAM


def folder(writ):
    """Where a server publishes its log."""
    return writ.folder / "data" / "log"


def key(writ):
    """The key that verifies it."""
    return (writ.folder / "data" / "keys" / "log.vkey").read_text().strip()


def size(log):
    """The size that the checkpoint names."""
    return int((log / "checkpoint").read_text().splitlines()[1])


def bundles(log):
    """The entry bundles that the checkpoint covers, and nothing that only lies there."""
    entries = size(log)
    for number in range(-(-entries // 256)):
        digits = f"{number:03}" if number < 1000 else f"x{number // 1000:03}/{number % 1000:03}"
        width = min(256, entries - number * 256)
        yield log / "tile" / "entries" / (digits if width == 256 else f"{digits}.p/{width}")


def leaves(log):
    """Every entry, in order."""
    found = []
    for bundle in bundles(log):
        rest = bundle.read_bytes()
        while rest:
            length = int.from_bytes(rest[:2], "big")
            found.append(json.loads(rest[2:2 + length]))
            rest = rest[2 + length:]
    assert len(found) == size(log), f"{len(found)} entries in bundles for {size(log)} leaves"
    return found


def check(log, key, *old):
    """The command of our checker over golang.org/x/mod."""
    return [peers.tlog_checker(), log, key, *old]


def foreign_verify(log, key, old, at_least):
    """Two verifiers of others: every entry, and that the tree of an old checkpoint is a beginning of this one."""
    said = run(check(log, key, old)).stdout.split()
    entries = int(said[2])
    assert said[0] == "ok" and entries >= at_least, said
    tool, source = peers.tlog_tool(), ["--log-key", key, "--tiles", log]
    run([tool, "verify-checkpoint", *source])
    run([tool, "verify-consistency", "--old-checkpoint", old, *source])
    for index in sorted({0, entries // 2, entries - 1}):
        run([tool, "verify-inclusion", "--index", index, *source])


def own_verify(log, key):
    """`writ audit verify`, and how the nodes' chains go on: no place in one is taken twice, none is left out."""
    own = run([PROGRAM, "audit", "verify", log, "--key", key], check=False)
    assert own.returncode in (0, 3), f"writ audit verify: {own.stdout}{own.stderr}"
    before = (0, -1)
    for leaf in leaves(log):
        place = (leaf["epoch"], leaf["seq"])
        assert place[1] == before[1] + 1 and place[0] >= before[0], f"entry {place} follows {before} in the chain of its node"
        before = place


def agrees(log, tasks, unlogged=False):
    """Asserts that the log tells of tasks exactly what the server's state says: which were opened, which have ended and
    why, and how many calls each was allowed. Only for a log that holds everything that was committed. A call that was
    refused because it could not be logged keeps its place in the budget, for the log may have it: `unlogged` allows that."""
    told = {}
    for leaf in leaves(log):
        event = leaf["event"]
        if event["type"] == "decision" and event["outcome"] == "allow":
            task = told.setdefault(event["task"], {"state": "open", "reason": None, "calls": 0, "opened": 0})
            task["opened"] += event["operation"] == "task.open"
            task["calls"] += not event["operation"].startswith("task.")
        elif event["type"] == "task.ended":
            task = told.setdefault(event["task"], {"state": "open", "reason": None, "calls": 0, "opened": 0})
            assert task["state"] == "open", f"{event['task']} ended twice"
            task.update(state="ended", reason=event["reason"])
    assert all(task["opened"] == 1 for task in told.values()), f"opened otherwise than once: {told}"
    assert told.keys() == tasks.keys(), f"only in the log or only in the state: {told.keys() ^ tasks.keys()}"
    for name, task in tasks.items():
        if unlogged and task["calls_used"] > told[name]["calls"]:
            told[name]["calls"] = task["calls_used"]
        state = {"state": task["state"], "reason": task["end_reason"], "calls": task["calls_used"], "opened": 1}
        assert state == told[name], f"{name}: state {state}, log {told[name]}"


def holds_all(log, marks):
    """Asserts that every mark (`mark-` and a UUID) stands in some entry."""
    logged = {mark.decode() for path in bundles(log) for mark in re.findall(rb"mark-[0-9a-f-]{36}", path.read_bytes())}
    missing = [mark for mark in marks if mark not in logged]
    assert not missing, f"{len(missing)} of {len(marks)} forwarded calls have no entry: {missing[:3]}"
    return logged
