"""The official conformance suite against one URL: every check of every scenario by its name.

A server that is not there "passes" dozens of checks, and an error answer can pass for text. So the
server is asked for the fixture's own words first, and results are compared check by check, never as sums.
"""

import json
import re

from . import peers
from .processes import run

STATELESS = "2026-07-28"
FIXTURE_SAYS = "This is a simple text response for testing."


def alive(url, revision):
    """Asserts that the fixture itself answers at the URL, by a client that is not the suite."""
    plan = peers.npm() / "clients" / "alive.json"
    plan.write_text(json.dumps([{"do": "call", "name": "test_simple_text"}]))
    mode = ["--auto"] if revision == STATELESS else []
    script = peers.npm() / "clients" / "plan.mjs"
    told = json.loads(run([peers.node(), script, plan, "http", url, *mode]).stdout)
    assert told["revision"] == revision, f"asked for {revision}, the server agreed on {told['revision']}"
    said = told["steps"][0]["result"]["content"][0]["text"]
    assert said == FIXTURE_SAYS, f"the fixture does not answer at {url}: {said!r}"


def checks(url, revision, folder):
    """Runs all scenarios of a revision; gives {scenario: {check: status}} and whether the suite was content."""
    alive(url, revision)
    entry = peers.package("@modelcontextprotocol/conformance") / "dist" / "index.js"
    command = [peers.node(), entry, "server", "--url", url, "--requirements", revision, "-o", folder]
    done = run(command, seconds=600, check=False)
    results = {}
    for file in sorted(folder.glob("*/checks.json")):
        name = re.sub(r"^server-|-\d{4}-\d{2}-\d{2}T[\d-]+Z$", "", file.parent.name)
        statuses = results.setdefault(name, {})
        for check in json.loads(file.read_text(encoding="utf-8")):
            key, number = check["id"], 2
            # A check may run several times in a scenario: each counts.
            while key in statuses:
                key, number = f"{check['id']} #{number}", number + 1
            statuses[key] = check["status"]
    assert results, f"the suite ran nothing:\n{done.stdout[-800:]}{done.stderr[-800:]}"
    return results, done.returncode == 0
