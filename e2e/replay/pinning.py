"""Tool definitions as approved and as later served by a malicious variant, through the real approval of the gateway."""

import json

from harness.agent import Agent
from harness.writ import Writ
from replay.upstream import Upstream

TYPES = {"str": "string", "int": "integer"}


def definition(tool):
    """A recorded tool as MCP writes it."""
    properties = {name: {"type": TYPES[kind]} for name, kind in tool["params"].items()}
    schema = {"type": "object", "properties": properties, "required": tool["required"]}
    return {"name": tool["name"], "description": tool["description"], "inputSchema": schema}


def respelled(value):
    """The same JSON in another spelling: members in another order, every character escaped that may be, other spaces."""
    if isinstance(value, dict):
        members = (f"{respelled(name)} :\n {respelled(value[name])}" for name in reversed(sorted(value)))
        return "{ " + " ,\t".join(members) + " }"
    if isinstance(value, list):
        return "[ " + " , ".join(map(respelled, value)) + " ]"
    if isinstance(value, str):
        return '"' + "".join(f"\\u{unit:04X}" for unit in _units(value)) + '"'
    return json.dumps(value)


def _units(text):
    raw = text.encode("utf-16-be")
    return [raw[at] << 8 | raw[at + 1] for at in range(0, len(raw), 2)]


def arguments(tool):
    """Arguments that fit a definition."""
    properties = tool["inputSchema"]["properties"]
    return {name: 1 if kind["type"] == "integer" else "x" for name, kind in properties.items()}


def reached(agent, upstream, served):
    """Of the tools that are served now, the names of those that an agent sees or reaches. It lists them first, as a client
    does: without that the gateway would ask the upstream anew only after half a minute.
    """
    _, token = agent.opened()
    listed = agent.ask("list", method="tools/list", token=token)
    names = {tool["name"] for tool in listed["body"]["result"]["tools"]}
    for tool in served:
        upstream.expected = (tool["name"], arguments(tool), "done")
        before = upstream.received
        agent.call(token, tool["name"], arguments(tool))
        assert (upstream.received > before) == (tool["name"] in names), f"`{tool['name']}` is listed or reached, not both"
    return names


def run(folder, path, program):
    """Approves, changes, and counts: changed and new definitions quarantined, equal ones let through."""
    servers = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        servers.setdefault(record["server"], {}).setdefault(record["variant"], []).append(record)
    counts = {name: {"count": 0, "of": 0} for name in ("changed quarantined", "new unreachable", "equal let through")}

    def count(name, hit):
        counts[name]["of"] += 1
        counts[name]["count"] += bool(hit)

    for number, (server, variants) in enumerate(sorted(servers.items())):
        approved = [definition(record["tool"]) for record in variants.pop("approved")]
        stage = folder / f"pinning-{number}"
        stage.mkdir()
        name = server.lower().replace("_", "-")
        Approving = type("Approving", (Writ,), {"program": program})
        with Upstream(approved) as upstream, Approving(stage, {name: upstream.url}) as writ, Agent(writ, name) as agent:
            assert reached(agent, upstream, approved) == {tool["name"] for tool in approved}, "approved tools are not reached"
            for variant, records in sorted(variants.items()):
                served = [definition(record["tool"]) for record in records]
                upstream.listing = json.dumps(served)
                names = reached(agent, upstream, served)
                for record in records:
                    # The name decides what an agent would take for the approved tool.
                    known = any(tool["name"] == record["tool"]["name"] for tool in approved)
                    count("changed quarantined" if known else "new unreachable", record["tool"]["name"] not in names)
            upstream.listing = respelled(approved)
            names = reached(agent, upstream, approved)
            for tool in approved:
                count("equal let through", tool["name"] in names)
    return counts
