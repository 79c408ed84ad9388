"""Upstreams that die, stream for ever, send too much or nothing, and clients that are slow or many: each hurts only
itself, while the calls of another agent go on as before.
"""

import json
import socket
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path

from harness import servers, tlog
from harness.agent import Agent, Operator, succeeded
from harness.fake import Fake
from harness.record import scenario
from harness.writ import Writ

FAKE = Path(__file__).resolve().parents[1] / "harness" / "fake.py"


def _outcomes(writ, task):
    """How the allowed calls of a task ended, by the log."""
    status, told = Operator(writ).ask(f"/v1/audit/entries?task={task}&type=outcome")
    assert status == 200, told
    return [entry["leaf"]["event"]["status"] if "leaf" in entry else entry["event"]["status"] for entry in told["items"]]


def _mark(agent, token, tool, **more):
    return agent.call(token, tool, {"mark": f"mark-{uuid.uuid4()}"}, **more)


def _dies(writ, upstream):
    with writ, Agent(writ, upstream) as agent:
        task, token = agent.opened()
        assert succeeded(_mark(agent, token, "plain")), "a plain call failed"
        for _ in range(3):
            told = _mark(agent, token, "dies")
            assert "lost" not in told and not succeeded(told), f"an upstream that died is answered {told}"
            assert succeeded(_mark(agent, token, "plain")), "the next call did not find the upstream again"
        operator = Operator(writ)
        writ.until(lambda: sorted(_outcomes(writ, task)) == ["ok"] * 4 + ["upstream_error"] * 3, f"outcomes: {_outcomes(writ, task)}")
        tasks = operator.tasks()
        writ.service.stop()
        tlog.own_verify(tlog.folder(writ), tlog.key(writ))
        tlog.agrees(tlog.folder(writ), tasks)


@scenario("hostile: an HTTP upstream dies in the middle of a call")
def dies_http(stage):
    with Fake() as fake:
        _dies(Writ(stage.folder, {"fake": fake.url}), "fake")


@scenario("hostile: a stdio upstream dies in the middle of a call")
def dies_stdio(stage):
    _dies(Writ(stage.folder, {"fake": [sys.executable, FAKE]}), "fake")


class Good:
    """An agent that calls without pause, and how long it waited for each answer."""

    def __init__(self, writ):
        self.waits, self.failed, self.stopping = [], [], False
        self.agent = Agent(writ, "helpdesk")

    def _work(self):
        while not self.stopping:
            began = time.monotonic()
            told = self.agent.call(self.token, "read_ticket", {"ticket_id": 4710})
            self.waits.append(time.monotonic() - began)
            if not succeeded(told):
                self.failed.append(told)

    def __enter__(self):
        self.agent.__enter__()
        _, self.token = self.agent.opened()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join(20)
        self.agent.__exit__()

    def unhurt(self, during):
        """Asserts that it got through all the time since the last look."""
        waits, self.waits = sorted(self.waits), []
        assert not self.failed, f"{during}: {len(self.failed)} calls failed: {self.failed[0]}"
        assert len(waits) >= 10, f"{during}: only {len(waits)} calls got through"
        # No measure of speed: one call that hangs as long as the other's would show here.
        assert waits[-1] < 5, f"{during}: a call took {waits[-1]:.1f} s"


def _resident(writ):
    """Resident memory of the server in MiB."""
    for line in Path(f"/proc/{writ.service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


@scenario("hostile: upstreams that send too much, too long or nothing")
def upstreams(stage):
    with servers.helpdesk(stage.folder) as server, Fake() as fake:
        writ = Writ(stage.folder, {"helpdesk": server.url, "fake": fake.url})
        with writ, Good(writ) as good, Agent(writ, "fake") as agent:
            task, token = agent.opened()
            began = _resident(writ)
            for _ in range(3):
                told = _mark(agent, token, "huge", patience=60)
                assert "lost" not in told and not succeeded(told), f"100 MB were passed on: {str(told)[:200]}"
            good.unhurt("an answer of 100 MB")
            # The client hangs up after two seconds: the stream goes with it.
            for _ in range(3):
                assert "lost" in _mark(agent, token, "endless", patience=2), "an endless stream came to an end"
            good.unhurt("a stream without an end")
            assert "lost" in _mark(agent, token, "silent", patience=2), "a silent upstream was answered"
            good.unhurt("a silent upstream")
            grown = _resident(writ) - began
            assert grown < 200, f"the server grew by {grown} MiB"
            # The task ends, and with it a stream under way.
            agent.begin("call", token=token, name="endless", arguments={"mark": "mark-end"}, patience=10)
            time.sleep(1)
            assert Operator(writ).ask(f"/v1/tasks/{task}/end", {})[0] == 200
            began = time.monotonic()
            agent.answer()
            assert time.monotonic() - began < 5, "a stream outlived its task"
            good.unhurt("the end of a streaming task")


def _connected(writ, first=b""):
    """A raw connection."""
    client = socket.create_connection(("127.0.0.1", writ.port), timeout=10)
    if first:
        client.sendall(first)
    return client


@scenario("hostile: clients that are slow, idle or many")
def clients(stage):
    with servers.helpdesk(stage.folder) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url})
        with writ, Good(writ) as good:
            idle = [_connected(writ) for _ in range(1000)]
            time.sleep(2)
            good.unhurt("1,000 idle connections")
            head = b"POST /mcp/helpdesk HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % writ.port
            slow = [_connected(writ, head) for _ in range(200)]
            body = [_connected(writ, head + b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n{") for _ in range(200)]
            for _ in range(10):
                for client in slow:
                    client.sendall(b"x-a: b\r\n")
                time.sleep(0.3)
            good.unhurt("200 slow heads and 200 slow bodies")
            # A head must be there in time: the server hangs up on those that drip.
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not _hung_up(slow[0]):
                time.sleep(0.5)
            assert _hung_up(slow[0]), "a head that never ends keeps its connection"
            huge = _connected(writ, head + b"x-a: " + b"a" * 1_000_000)
            assert _hung_up(huge) or huge.recv(100).startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), "a head of a megabyte was read"
            with urllib.request.urlopen(f"{writ.url}/healthz", timeout=5) as answer:
                assert answer.status == 200
            good.unhurt("all of it")
            for client in [*idle, *slow, *body, huge]:
                client.close()


def _hung_up(client):
    client.settimeout(0.2)
    try:
        return client.recv(1, socket.MSG_PEEK) == b"" or b"HTTP" in client.recv(1000)
    except TimeoutError:
        return False
    except OSError:
        return True
