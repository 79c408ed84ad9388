"""Clients and the suite against the servers themselves. These are no tests of Writ: they hold the
peers still. What they find is what "through Writ" must equal, and a peer that changed shows here first.
"""

from harness import servers, suite, transcript
from harness.record import same, scenario

CLIENTS = ("ts", "ts-auto", "python", "python-legacy")


def _conformance(stage, revision):
    with servers.conformance(stage.folder) as server:
        results, content = suite.checks(server.url, revision, stage.folder / "out")
    stage.expect(f"conformance-{revision}.json", results)
    assert content, "the suite found faults in the fixture"


@scenario("direct: conformance 2025-11-25", quick=True)
def conformance_sessions(stage):
    _conformance(stage, "2025-11-25")


@scenario("direct: conformance 2026-07-28")
def conformance_stateless(stage):
    _conformance(stage, "2026-07-28")


def _told(walked, folder):
    """What one client was told, in short: enough to see a peer change, little enough to read."""
    steps = transcript.meaning(walked, [(folder, "(folder)")])
    errors = [number for number, step in enumerate(steps) if "error" in step or _is_error(step["result"])]
    return steps, {"revision": walked["revision"], "steps": len(steps), "errors": errors}


def _is_error(result):
    return isinstance(result, dict) and result.get("isError", False)


def _walk_all(stage, name, target):
    told = {}
    for client in CLIENTS:
        walked = transcript.walk(client, servers.plan(name, stage.folder), target())
        told[client] = _told(walked, stage.folder)[1]
    stage.expect(f"direct-{name}.json", told)


@scenario("direct: server-everything over stdio")
def everything(stage):
    _walk_all(stage, "everything", lambda: ["stdio", *servers.stdio("everything", stage.folder)])


@scenario("direct: server-everything over HTTP")
def everything_http(stage):
    with servers.everything(stage.folder) as server:
        _walk_all(stage, "everything", lambda: ["http", server.url])


@scenario("direct: server-filesystem over stdio")
def filesystem(stage):
    _walk_all(stage, "filesystem", lambda: ["stdio", *servers.stdio("filesystem", stage.folder)])


@scenario("direct: server-memory over stdio")
def memory(stage):
    def target():
        (stage.folder / "memory.jsonl").unlink(missing_ok=True)
        return ["stdio", *servers.stdio("memory", stage.folder)]

    _walk_all(stage, "memory", target)


@scenario("direct: helpdesk over HTTP", quick=True)
def helpdesk(stage):
    told, steps = {}, {}
    for client in CLIENTS:
        with servers.helpdesk(stage.folder) as server:
            walked = transcript.walk(client, servers.plan("helpdesk", stage.folder), ["http", server.url])
        steps[client], told[client] = _told(walked, stage.folder)
    same(steps["ts"], steps["ts-auto"], "with a session", "stateless")
    same(steps["python-legacy"], steps["python"], "with a session", "stateless")
    stage.expect("direct-helpdesk.json", told)


@scenario("direct: MCP Inspector to helpdesk")
def inspector(stage):
    with servers.helpdesk(stage.folder) as server:
        told = [step["result"] for step in transcript.inspect(server.url)["steps"]]
    assert len(told[0]["tools"]) == 7 and told[1]["structuredContent"]["total_cents"] == 4990, told[:2]
