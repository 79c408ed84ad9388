"""The official suite's client scenarios, where they apply: Writ is a client of its upstreams, and its authorization server
serves clients. What does not apply is said in `docs/conformance.md`, with the reason.
"""

import json
import re
import sys
from pathlib import Path

from harness import peers, servers
from harness.processes import run
from harness.record import same, scenario
from harness.writ import AGENT, Writ

BETWEEN = Path(__file__).resolve().parents[1] / "harness" / "between.py"
# By revision: what is about requests to a server, and not about getting a token for it.
APPLY = {
    "2025-11-25": ("initialize", "tools_call", "elicitation-sep1034-client-defaults", "json-schema-2020-12-preservation"),
    "2026-07-28": ("tools_call", "request-metadata", "http-standard-headers", "http-custom-headers", "http-invalid-tool-headers",
                   "sep-2322-client-request-state", "json-schema-ref-no-deref", "json-schema-2020-12-preservation"),
}


def _checks(way, revision, name, folder):
    """Runs one scenario; gives {check: status}."""
    out = folder / f"{way}-{revision}-{name}"
    out.mkdir(parents=True)
    entry = peers.package("@modelcontextprotocol/conformance") / "dist" / "index.js"
    command = f"{sys.executable} {BETWEEN} {way} {out}"
    run([peers.node(), entry, "client", "--command", command, "--scenario", name, "--spec-version", revision, "-o", out,
         "--timeout", "60000", "--force"], seconds=120, check=False)
    statuses = {}
    for file in sorted(out.rglob("checks.json")):
        for check in json.loads(file.read_text(encoding="utf-8")):
            key, number = f"{check['id']} {check['name']}", 2
            while key in statuses:
                key, number = f"{check['id']} {check['name']} #{number}", number + 1
            statuses[key] = check["status"]
    assert statuses, f"{name} ran nothing"
    return statuses


def _verdicts(statuses):
    """What a check came to, however often it ran: the worst."""
    worst = {}
    for key, status in statuses.items():
        name = re.sub(r" #\d+$", "", key)
        if worst.get(name) != "FAILURE":
            worst[name] = "FAILURE" if status == "FAILURE" else worst.get(name, status)
    return worst


@scenario("client: the suite's scenarios for clients, with Writ between client and server")
def suite(stage):
    failed = []
    for revision, names in APPLY.items():
        for name in names:
            direct = _verdicts(_checks("direct", revision, name, stage.folder))
            through = _verdicts(_checks("writ", revision, name, stage.folder))
            try:
                same({key: status for key, status in direct.items()}, {key: through.get(key) for key in direct})
                assert "FAILURE" not in through.values(), f"{[key for key, status in through.items() if status == 'FAILURE']}"
            except AssertionError as error:
                failed.append(f"{revision} {name}: {error}")
    assert not failed, "\n".join(failed)


@scenario("client: the official TypeScript client federates a workload identity, with DPoP", quick=True)
def federated(stage):
    for nonce in ("optional", "required"):
        folder = stage.folder / nonce
        folder.mkdir()
        with servers.helpdesk(folder) as server, Writ(folder, {"helpdesk": server.url}, nonce=nonce) as writ:
            told = json.loads(run([peers.node(), peers.npm() / "clients" / "federated.mjs", writ.job("helpdesk")]).stdout)
            assert told["type"] == "DPoP" and told["bound"], told
            assert told["claims"]["sub"] == AGENT and told["claims"]["task"].startswith("tsk_"), told
            assert told["revision"] == "2026-07-28" and "read_ticket" in told["tools"] and not told["failed"], told

