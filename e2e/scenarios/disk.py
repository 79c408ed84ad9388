"""What the disk does to a running server, and what somebody does to its files: it refuses, says so, and goes on by itself
when the cause is gone; what was changed is found.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import uuid
from contextlib import contextmanager

from harness import servers, tlog
from harness.agent import Agent, Operator, succeeded
from harness.processes import DidNotStart, run
from harness.record import Skip, scenario
from harness.writ import PROGRAM, Writ


@contextmanager
def _mounted(folder, *options):
    """Something mounted over a folder, until the block ends."""
    done = run(["mount", *options, folder], check=False)
    if done.returncode != 0:
        raise Skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        run(["umount", "--lazy", folder], check=False)


class Day:
    """A server with an open task, and what an agent does with it."""

    def __init__(self, writ, agent, records):
        self.writ, self.agent, self.records = writ, agent, records
        self.operator = Operator(writ)
        self.marks = set()
        self.task, self.token = agent.opened()

    def call(self):
        """Calls a tool; gives whether it was done, and the whole answer."""
        mark = f"mark-{uuid.uuid4()}"
        self.marks.add(mark)
        told = self.agent.call(self.token, "reply_ticket", {"ticket_id": 4710, "body": mark})
        return succeeded(told), told, mark

    def received(self):
        with sqlite3.connect(self.records) as records:
            return {body for (body,) in records.execute("SELECT body FROM replies") if body.startswith("mark-")}

    def refused(self, why):
        """Asserts that calls and new tasks are refused in words, that nothing is forwarded, and that it says so."""
        done, told, mark = self.call()
        assert not done and "could not be logged" in str(told), f"{why}: the call was answered {told}"
        assert mark not in self.received(), f"{why}: a call was forwarded that is not in the log"
        status, told = self.operator.ready()
        assert status == 503 and told["checks"]["ledger"] == "the ledger cannot be written", (why, status, told)
        told = self.agent.ask("open")
        assert told["status"] == 503 and told["body"]["error"] == "temporarily_unavailable", (why, told)
        assert self.operator.ask("/healthz")[0] == 200, f"{why}: the process does not answer"

    def recovered(self, why):
        """Asserts that it goes on without a restart."""
        self.writ.until(lambda: self.operator.ready()[0] == 200, f"{why}: it did not become ready again")
        assert self.call()[0], f"{why}: calls are still refused"
        self.agent.opened()

    def judged(self):
        """Stops the server; log and state must be what they say."""
        tasks = self.operator.tasks()
        assert self.writ.service.stop() == 0, "the server did not stop in good order"
        log = tlog.folder(self.writ)
        tlog.own_verify(log, tlog.key(self.writ))
        tlog.agrees(log, tasks, unlogged=True)
        tlog.holds_all(log, self.received())


@contextmanager
def _day(stage):
    records = stage.folder / "helpdesk.db"
    with servers.helpdesk(stage.folder, records) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url})
        with writ, Agent(writ, "helpdesk") as agent:
            yield Day(writ, agent, records)


@scenario("disk: a full one")
def full(stage):
    records = stage.folder / "helpdesk.db"
    with servers.helpdesk(stage.folder, records) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url})
        data = writ.folder / "data"
        data.mkdir(exist_ok=True)
        kept = shutil.copytree(data, stage.folder / "data-before")
        with _mounted(data, "-t", "tmpfs", "-o", "size=24m,mode=700", "none"):
            shutil.copytree(kept, data, dirs_exist_ok=True)
            with writ, Agent(writ, "helpdesk") as agent:
                day = Day(writ, agent, records)
                assert day.call()[0], "a call on an empty disk failed"
                filler = data / "filler"
                _fill(filler)
                # There may be room left in pages that the database already has.
                writ.until(lambda: not day.call()[0], "a full disk does not show")
                day.refused("full disk")
                filler.unlink()
                day.recovered("room again")
                day.judged()


def _fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@scenario("disk: the folder of the log cannot be written")
def unwritable(stage):
    """What is decided is durable in the database: calls go on for a while, but nobody can verify them, so it says so."""
    with _day(stage) as day:
        log = tlog.folder(day.writ)
        day.writ.until(lambda: tlog.size(log) > 2, "nothing was published")
        with _mounted(log, "--bind", str(log)):
            run(["mount", "-o", "remount,bind,ro", log])
            assert day.call()[0], "an entry that is durable was not enough"
            day.writ.until(lambda: day.operator.ready()[1]["checks"]["ledger"] == "the log cannot be published",
                           "it does not say that nothing can be published")
            assert day.operator.ready()[0] == 503
            assert "the log cannot be published" in day.writ.service.tail(200), "the operator's log does not say so"
        day.recovered("writable again")
        day.judged()


@scenario("disk: the database is taken away and put back")
def taken(stage):
    with _day(stage) as day:
        data, aside = day.writ.folder / "data", stage.folder / "aside"
        aside.mkdir()
        assert day.call()[0]
        for path in data.glob("writ.db*"):
            path.rename(aside / path.name)
        day.refused("no database")
        assert not list(data.glob("writ.db*")), "an empty database was put in place of the one that is gone"
        for path in aside.iterdir():
            path.rename(data / path.name)
        day.recovered("the database is back")
        day.judged()


def _refuses(writ, *words):
    """Asserts that the server does not start, and says why."""
    try:
        writ.service.__enter__()
    except DidNotStart as error:
        said = str(error)
        assert all(word in said for word in words), f"it does not say `{words}`:\n{said}"
        assert writ.service.process.returncode not in (0, None), "it did not end by itself"
        return
    writ.service.stop()
    raise AssertionError(f"it started though {words}")


@scenario("disk: files that were changed while it was down are found")
def changed(stage):
    with _day(stage) as day:
        for _ in range(3):
            assert day.call()[0]
        # Killed before it published its last batch: a row of the database is then all there is.
        assert day.writ.service.stop(signal.SIGKILL) is not None
        writ, data = day.writ, day.writ.folder / "data"
        whole = shutil.copytree(data, stage.folder / "whole")
        key = tlog.key(writ)

        def restore():
            shutil.rmtree(data)
            shutil.copytree(whole, data)

        # The database is gone, or is an old one.
        for path in data.glob("writ.db*"):
            path.unlink()
        _refuses(writ, "went back in time")
        restore()
        # A row was edited.
        with sqlite3.connect(data / "writ.db") as database:
            rows = database.execute("UPDATE log_batch SET packed = zeroblob(length(packed))").rowcount
            head = database.execute("UPDATE log_head SET root = zeroblob(32)").rowcount
        assert rows + head, "there was no row to edit"
        _refuses(writ, "log")
        restore()
        # The database file is damaged in the middle of its header's page.
        with open(data / "writ.db", "r+b") as file:
            file.seek(16)
            file.write(b"\xff" * 84)
        for path in data.glob("writ.db-*"):
            path.unlink()
        _refuses(writ, "not a database")
        restore()
        # A tile at the edge of the tree was changed: at start and by `verify`.
        writ.service.__enter__()
        assert writ.service.stop() == 0
        log = tlog.folder(writ)
        tlog.own_verify(log, key)
        *_, bundle = tlog.bundles(log)
        content = bytearray(bundle.read_bytes())
        content[len(content) // 2] ^= 1
        bundle.chmod(0o644)
        bundle.write_bytes(content)
        assert run([PROGRAM, "audit", "verify", log, "--key", key], check=False).returncode == 1, "verify accepts a changed entry"
        _refuses(writ, "tile")
        content[len(content) // 2] ^= 1
        bundle.write_bytes(content)
        writ.service.__enter__()
        assert day.call()[0], "what was put right again does not go on"
        day.judged()
