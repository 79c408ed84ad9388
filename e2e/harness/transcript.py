"""Transcripts of clients that walked a plan, and what is left of them when only meaning counts.

Two transcripts of the same plan must be equal when one client spoke to the server itself and the other
through Writ. Taken away is only what belongs to the revision or the hop: marks that every result of the
stateless revision carries, and notices whose moment is not fixed.
"""

import json

from . import peers
from .processes import run

# Members that the revision adds to results, or that say how long a client may keep them.
OF_THE_REVISION = ("resultType", "ttlMs", "cacheScope")


def walk(client, plan, target):
    """Lets a client (`ts`, `ts-auto`, `python`, `python-legacy`) walk a plan; gives its transcript."""
    if client.startswith("ts"):
        command = [peers.node(), peers.npm() / "clients" / "plan.mjs", plan, *target]
        command += ["--auto"] if client == "ts-auto" else []
    else:
        command = [peers.python(), peers.ROOT / "e2e" / "clients" / "plan.py", plan, *target]
        command += ["--legacy"] if client == "python-legacy" else []
    said = run(command, seconds=120).stdout.strip().splitlines()
    return json.loads(said[-1])


# What the Inspector's command line is asked, one process each.
INSPECTED = (
    ("--method", "tools/list"),
    ("--method", "tools/call", "--tool-name", "get_order", "--tool-arg", "order_id=A-1001"),
    ("--method", "tools/call", "--tool-name", "read_ticket", "--tool-arg", "ticket_id=4710"),
    ("--method", "resources/list"),
    ("--method", "resources/read", "--uri", "helpdesk://guides/refunds"),
    ("--method", "prompts/list"),
    ("--method", "prompts/get", "--prompt-name", "answer_ticket", "--prompt-args", "ticket_id=4710"),
)


def inspect(url):
    """Asks a helpdesk with the MCP Inspector's command line; gives a transcript like that of the clients."""
    entry = peers.package("@modelcontextprotocol/inspector") / "clients" / "launcher" / "build" / "index.js"
    steps = []
    for words in INSPECTED:
        said = run([peers.node(), entry, "--cli", url, "--transport", "http", *words]).stdout
        steps.append({"step": {"do": " ".join(words)}, "log": [], "result": json.loads(said)})
    return {"revision": None, "steps": steps}


def meaning(transcript, replaced=()):
    """The outcomes in a form that can be compared; `replaced` pairs name texts of this run only."""
    steps = []
    for step in transcript["steps"]:
        kept = {"step": step["step"]}
        kept["log"] = [entry for entry in step["log"] if not _unsteady(entry)]
        if "result" in step:
            kept["result"] = _stripped(step["result"])
        else:
            kept["error"] = step["error"]
        steps.append(kept)
    text = json.dumps(steps)
    for here, there in replaced:
        text = text.replace(json.dumps(str(here))[1:-1], there)
    return json.loads(text)


def _unsteady(entry):
    # The last progress notice may overtake the result; a changed list is announced when the server likes.
    last = "progress" in entry and entry["progress"] == entry["total"]
    # Where a call asks for input in rounds, the TypeScript client reports each round itself, without a total.
    own = "progress" in entry and entry["total"] is None
    return last or own or str(entry.get("notified", "")).endswith("list_changed")


def _stripped(result):
    if isinstance(result, list):
        # How a tool goes with the tasks of 2025-11-25: clients of the stateless revision do not know it.
        return [{name: value for name, value in item.items() if name != "execution"} for item in result]
    kept = {name: value for name, value in result.items() if name not in OF_THE_REVISION}
    meta = kept.get("_meta")
    if isinstance(meta, dict):
        meta = {name: value for name, value in meta.items() if name != "io.modelcontextprotocol/serverInfo"}
        kept = {**kept, "_meta": meta} if meta else {name: value for name, value in kept.items() if name != "_meta"}
    if kept.get("isError") is False:
        # Said or left out, it means the same, and SDKs differ.
        del kept["isError"]
    return kept
