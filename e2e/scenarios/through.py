"""The same clients, the same suite, the same servers, with Writ between them: what comes back must equal
what comes back without it, step by step and check by check.
"""

from harness import servers, suite, transcript
from harness.record import same, scenario
from harness.writ import Writ

CLIENTS = ("ts", "ts-auto", "python", "python-legacy")


def _conformance(stage, revision):
    direct, through = stage.folder / "direct", stage.folder / "through"
    with servers.conformance(stage.folder) as server:
        wanted, _ = suite.checks(server.url, revision, direct)
        with Writ(stage.folder, {"fixture": server.url}) as writ, writ.way_in("fixture") as way_in:
            got, content = suite.checks(way_in.url, revision, through)
    same(wanted, got)
    assert content, "the suite found faults through Writ"


@scenario("through: conformance 2025-11-25")
def conformance_sessions(stage):
    _conformance(stage, "2025-11-25")


@scenario("through: conformance 2026-07-28")
def conformance_stateless(stage):
    _conformance(stage, "2026-07-28")


def _walk_both(stage, name, target, direct):
    """Every client walks the plan twice: past Writ and through it."""
    plan = servers.plan(name, stage.folder)
    for client in CLIENTS:
        wanted = transcript.meaning(transcript.walk(client, plan, direct()))
        (stage.folder / client).mkdir()
        with Writ(stage.folder / client, {name: target()}) as writ, writ.way_in(name) as way_in:
            got = transcript.meaning(transcript.walk(client, plan, ["http", way_in.url]))
        _judge(wanted, got, client)


def _judge(wanted, got, client):
    for step in got:
        if step["step"].get("refused"):
            refused = "error" in step or step["result"].get("isError")
            assert refused, f"{client}: {step['step']} was not refused"
    keep = [number for number, step in enumerate(wanted) if not step["step"].get("refused")]
    assert len(wanted) == len(got), f"{client}: {len(got)} of {len(wanted)} steps were walked"
    differing = []
    for number in keep:
        try:
            same(wanted[number], got[number])
        except AssertionError as error:
            differing.append(f"{client}, step {number} {wanted[number]['step']}: {error}")
    assert not differing, "\n".join(differing)


@scenario("through: server-everything over stdio")
def everything(stage):
    _walk_both(stage, "everything", lambda: servers.stdio("everything", stage.folder),
               lambda: ["stdio", *servers.stdio("everything", stage.folder)])


@scenario("through: server-everything over HTTP")
def everything_http(stage):
    with servers.everything(stage.folder) as server:
        _walk_both(stage, "everything", lambda: server.url, lambda: ["http", server.url])


@scenario("through: server-filesystem over stdio")
def filesystem(stage):
    def fresh():
        (stage.folder / "files" / "made.txt").unlink(missing_ok=True)
        return servers.stdio("filesystem", stage.folder)

    _walk_both(stage, "filesystem", fresh, lambda: ["stdio", *fresh()])


@scenario("through: server-memory over stdio")
def memory(stage):
    def fresh():
        (stage.folder / "memory.jsonl").unlink(missing_ok=True)
        return servers.stdio("memory", stage.folder)

    _walk_both(stage, "memory", fresh, lambda: ["stdio", *fresh()])


@scenario("through: helpdesk over HTTP", quick=True)
def helpdesk(stage):
    plan = servers.plan("helpdesk", stage.folder)
    for client in CLIENTS:
        with servers.helpdesk(stage.folder) as server:
            wanted = transcript.meaning(transcript.walk(client, plan, ["http", server.url]))
        # A server of its own again: the plan refunds something.
        (stage.folder / client).mkdir()
        with servers.helpdesk(stage.folder / client) as server:
            with Writ(stage.folder / client, {"helpdesk": server.url}) as writ, writ.way_in("helpdesk") as way_in:
                got = transcript.meaning(transcript.walk(client, plan, ["http", way_in.url]))
        _judge(wanted, got, client)


@scenario("through: MCP Inspector to helpdesk")
def inspector(stage):
    with servers.helpdesk(stage.folder) as server:
        wanted = transcript.meaning(transcript.inspect(server.url))
        with Writ(stage.folder, {"helpdesk": server.url}) as writ, writ.way_in("helpdesk") as way_in:
            got = transcript.meaning(transcript.inspect(way_in.url))
    _judge(wanted, got, "inspector")
