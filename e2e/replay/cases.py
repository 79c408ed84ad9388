"""Recorded cases through a running `writ serve`: a task each, a call a step. What the gateway is told is the declaration, the
tool and its arguments; what a step was for (`origin`, `needed`, `vectors`, `goal`, `kind`) stays here.
"""

import gzip
import hashlib
import json
import re
import shutil
import time
import tomllib
import urllib.request
from pathlib import Path

from harness.agent import Agent
from harness.writ import Writ
from replay.upstream import Upstream

HERE = Path(__file__).resolve().parent
POLICY = HERE / "policy"
TASKS = HERE / "tasks.toml"
APPROVED = "context.facts.approved"
EVERYTHING = '@id("everything")\npermit (principal, action, resource);\n'


def frozen():
    """The hash of everything that was written for the replay: policies, labels, intents, declarations."""
    digest = hashlib.sha256()
    for path in sorted([*(path for path in POLICY.rglob("*") if path.is_file()), TASKS]):
        digest.update(f"{path.relative_to(HERE)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def declarations():
    """For each suite and task: the intent and its parameters."""
    written = tomllib.loads(TASKS.read_text(encoding="utf-8"))
    return {
        (suite, task): {"intent": said["intent"], "parameters": {name: value for name, value in said.items() if name != "intent"}}
        for suite, tasks in written.items() for task, said in tasks.items()
    }


def policies(end):
    """The policy files of an end: `denied` as they stand, so that a question is a refusal; `granted` as they stand once
    every question was answered with yes; `everything` for the baseline, which shows that nothing else stops a call.
    """
    if end == "everything":
        return {"everything.cedar": EVERYTHING}
    written = {path.name: path.read_text(encoding="utf-8") for path in POLICY.glob("*.cedar")}
    if end == "granted":
        written = {name: re.sub(r"^@approvers.*\n", "", text, flags=re.MULTILINE).replace(APPROVED, "true")
                   for name, text in written.items()}
    return written


class Replayed(Writ):
    """Writ with the policy of an end of the replay."""

    policy = POLICY
    end = "denied"

    def _write_policy(self):
        # Policies name tools, which must be approved first.
        shutil.rmtree(self.folder / "policy")
        shutil.copytree(POLICY, self.folder / "policy", ignore=shutil.ignore_patterns("*.cedar"))

    def __enter__(self):
        super().__enter__()
        try:
            for name, text in policies(self.end).items():
                (self.folder / "policy" / name).write_text(text)
            self.command("policy", "check", self.folder / "policy")
            if self.end == "denied":
                self.command("policy", "test", self.folder / "policy")
            self.command("policy", "reload")
        except BaseException:
            self.service.stop()
            raise
        return self

    def stages(self):
        """The histogram of the time that decisions took, from the server's own metrics: upper bound in seconds, count."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r'stage_duration_seconds_bucket\{(.*?)\} (\d+)', text)
        return [(float(re.search(r'le="([^"]+)"', labels)[1]), int(count)) for labels, count in found if 'stage="decide"' in labels]


def tools(data):
    """Tools of each suite as MCP writes them, and those that have side effects."""
    offered, effects = {}, set()
    for line in (data / "agentdojo" / "tools.jsonl").read_text(encoding="utf-8").splitlines():
        tool = json.loads(line)
        described = {"name": tool["tool"], "description": tool["description"], "inputSchema": tool["parameters"]}
        offered.setdefault(tool["suite"], []).append(described)
        if tool["kind"] == "write":
            effects.add((tool["suite"], tool["tool"]))
    return offered, effects


def recorded(data):
    """The cases, one after the other."""
    with gzip.open(data / "agentdojo" / "cases.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def verdict(told):
    """What the gateway said to a call: `allow`, `ask`, or `deny`, and for a refusal its reason and policies."""
    body = told.get("body")
    assert told.get("status") == 200 and isinstance(body, dict), f"no answer to a call: {told}"
    if "error" in body:
        assert body["error"]["message"].startswith("Unknown tool"), f"an error and no decision: {body['error']}"
        return "deny", "hidden"
    denial = body["result"].get("_meta", {}).get("dev.writ/denial")
    if denial is None:
        assert not body["result"].get("isError"), f"an error and no decision: {body['result']}"
        return "allow", None
    said = " ".join([denial["reason"], *denial["policies"]])
    return ("ask" if denial["reason"] == "approval_needed" else "deny"), said


def replay_case(case, declared, agent, upstream):
    """Opens the task, makes each call, ends the task; gives what was said to each."""
    task, token = agent.opened(declared=declared)
    steps = []
    for step in case["steps"]:
        upstream.expected = (step["tool"], step["args"], step["output"])
        before = upstream.received
        told = agent.call(token, step["tool"], step["args"])
        said, why = verdict(told)
        assert upstream.surprise is None, upstream.surprise
        assert (upstream.received > before) == (said == "allow"), f"{case['id']}: said {said}, and the upstream saw otherwise"
        took = told["ms"] - (upstream.worked if said == "allow" else 0)
        steps.append({"tool": step["tool"], "verdict": said, "why": why, "needed": bool(step.get("needed")), "ms": took})
    agent.ask("end", task=task, token=token)
    return {name: case.get(name) for name in ("id", "kind", "suite", "paper629")} | {"task": case["task"]["id"], "steps": steps}


def replay(folder, data, program, end):
    """All cases through one server with the policy of an end; gives what became of them, and how long decisions took by the server's own count."""
    offered, _ = tools(data)
    declared, done, began = declarations(), [], time.monotonic()
    stage = folder / end
    stage.mkdir()
    Server = type("Server", (Replayed,), {"program": program, "end": end})
    with Upstream(offered["workspace"]) as workspace, Upstream(offered["banking"]) as banking:
        upstreams = {"workspace": workspace, "banking": banking}
        with Server(stage, {name: upstream.url for name, upstream in upstreams.items()}) as writ, \
                Agent(writ, "workspace") as at_workspace, Agent(writ, "banking") as at_banking:
            agents = {"workspace": at_workspace, "banking": at_banking}
            for case in recorded(data):
                suite = case["suite"]
                done.append(replay_case(case, declared[suite, case["task"]["id"]], agents[suite], upstreams[suite]))
            stages = writ.stages()
    return {"cases": done, "stages": stages, "seconds": round(time.monotonic() - began, 1)}
