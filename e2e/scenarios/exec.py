"""`writ exec` as a person uses it: an unmodified client gets an endpoint and never a token, the task ends
with the command, and the same works as an MCP server program on standard input and output.
"""

import json
import subprocess
import urllib.error
import urllib.request

from harness import servers, transcript
from harness.processes import run
from harness.record import same, scenario
from harness.writ import Writ


def _open_tasks(writ):
    tasks = json.loads(writ.command("task", "list", "--json").stdout)
    tasks = tasks.get("items", tasks) if isinstance(tasks, dict) else tasks
    return [task for task in tasks if task.get("state") not in ("ended", "closed") and not task.get("ended")]


@scenario("exec: the command gets an endpoint, its exit code comes back, its task ends", quick=True)
def command(stage):
    with servers.helpdesk(stage.folder) as server, Writ(stage.folder, {"helpdesk": server.url}) as writ:
        told = run(writ.exec("helpdesk", "env")).stdout
        given = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        assert given["WRIT_MCP_HELPDESK_URL"].startswith("http://127.0.0.1:"), given
        assert given["WRIT_TASK"].startswith("tsk_"), given
        assert "eyJ" not in told, "something that looks like a token is in the environment of the command"
        assert run(writ.exec("helpdesk", "sh", "-c", "exit 7"), check=False).returncode == 7
        assert run(writ.exec("helpdesk", "sh", "-c", "kill -TERM $$"), check=False).returncode == 128 + 15
        assert not _open_tasks(writ), f"tasks outlive their commands: {_open_tasks(writ)}"


@scenario("exec: official clients over the stdio bridge")
def bridge(stage):
    plan = servers.plan("helpdesk", stage.folder)
    for client in ("ts", "ts-auto", "python", "python-legacy"):
        folder = stage.folder / client
        folder.mkdir()
        with servers.helpdesk(folder) as server:
            wanted = transcript.meaning(transcript.walk(client, plan, ["http", server.url]))
        with servers.helpdesk(folder) as server, Writ(folder, {"helpdesk": server.url}) as writ:
            got = transcript.meaning(transcript.walk(client, plan, ["stdio", *writ.exec("helpdesk")]))
        same(wanted, got, "direct", f"{client} over the bridge")


@scenario("exec: the stdio bridge repeats arguments in headers as the tool's definition wants")
def repeated(stage):
    revision = "2026-07-28"
    tags = {"io.modelcontextprotocol/protocolVersion": revision, "io.modelcontextprotocol/clientCapabilities": {}}
    values = ["first", "grün \u2603", " second "]
    calls = [{"jsonrpc": "2.0", "id": number, "method": "tools/call",
              "params": {"name": "test_custom_header", "arguments": {"value": value}, "_meta": tags}}
             for number, value in enumerate(values)]
    with servers.conformance(stage.folder) as server:
        # The server itself takes no such call without the header: a bridge that forgot it would not pass.
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream",
                   "mcp-protocol-version": revision, "mcp-method": "tools/call", "mcp-name": "test_custom_header"}
        bare = urllib.request.Request(server.url, json.dumps(calls[0]).encode(), headers)
        try:
            refused = urllib.request.urlopen(bare, timeout=10).read()
        except urllib.error.HTTPError as error:
            refused = error.read()
        assert b"-32020" in refused, refused
        with Writ(stage.folder, {"fixture": server.url}) as writ:
            # Nobody lists tools first: the bridge has to find out.
            command = [str(word) for word in writ.exec("fixture")]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bridge:
                try:
                    for call, value in zip(calls, values):
                        bridge.stdin.write(json.dumps(call) + "\n")
                        bridge.stdin.flush()
                        answer = json.loads(bridge.stdout.readline())
                        assert answer.get("id") == call["id"], answer
                        assert answer.get("result", {}).get("content", [{}])[0].get("text") == value, answer
                finally:
                    bridge.stdin.close()
                    bridge.wait(timeout=20)


@scenario("exec: the endpoint answers its own name only")
def names(stage):
    with servers.helpdesk(stage.folder) as server, Writ(stage.folder, {"helpdesk": server.url}) as writ:
        with writ.way_in("helpdesk") as way_in:
            for header in ("Host: attacker.example", "Origin: https://attacker.example"):
                status = _status(way_in.url, header)
                assert status in (400, 403, 421), f"{header} was answered {status}"
            assert _status(way_in.url, "X-Any: thing") not in (403, 421)


def _status(url, header):
    name, value = header.split(": ")
    asked = urllib.request.Request(url, b"{}", {"content-type": "application/json", name: value})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
