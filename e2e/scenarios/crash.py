"""Killed exactly at each step that the product names (`CRASH(…)` in its code), then started again. A debug build dies at
the step that a file names, as by `kill -9`; a release build cannot.
"""

import re
import shutil
import signal
import sqlite3
import subprocess
import uuid

from harness import peers, servers, tlog
from harness.agent import Agent, Operator, granted, succeeded
from harness.processes import Service
from harness.record import scenario
from harness.writ import AGENT, PROGRAM, Writ

VARIABLE = "WRIT_DIE_AT"
COMMIT = ("commit.applied", "commit.durable")
ISSUE = ("issue.decided", "commit.applied", "commit.durable", "proof.signed", "issue.included", "issue.effective", "proof.kept",
         "issue.signed")
# What is done, and at which steps the server dies while doing it.
TRIALS = {
    "open": ISSUE,
    "renew": ISSUE,
    "replace": ISSUE,
    "end": ("end.effective", *COMMIT, "end.logged"),
    "revoke": ("revoke.effective", *COMMIT, "revoke.logged"),
    "suspend": (*COMMIT, "agents.logged", "agents.effective", "end.effective"),
    "reload": (*COMMIT, "policy.logged", "policy.effective", "end.effective"),
    "rotate": ("keys.made", *COMMIT, "keys.logged", "keys.effective"),
    "call": ("call.parsed", "call.decided", *COMMIT, "call.logged", "call.released", "call.sent", "call.answered", "call.recorded",
             "publish.written", "publish.signed", "publish.recorded", "publish.replaced", "publish.forgotten"),
    "hear": ("heard.logged",),
    "start": ("start.recovered", "start.positioned"),
}
# Steps of credentials at targets: their trials need the targets' servers and stand beside those.
ELSEWHERE = ("credential.", "orphan.", "probe.")
# Up to here nothing is durable; from the next step on all of it is.
BEFORE = {"issue.decided", "commit.applied", "end.effective", "revoke.effective", "call.parsed", "call.decided"}


class Trial:
    """One server, killed once at a step while something is done to it."""

    def __init__(self, writ, folder, records):
        self.writ = writ
        self.at = folder / "die-at"
        self.records = records
        self.kept = folder / "checkpoints"
        self.kept.mkdir()
        self.writ.service.environment[VARIABLE] = str(self.at)
        self.operator = Operator(writ)

    def received(self):
        """The marks that the upstream saw."""
        with sqlite3.connect(self.records) as records:
            return {body for (body,) in records.execute("SELECT body FROM replies") if body.startswith("mark-")}

    def die(self, step, act):
        """Arms the step, acts, and sees the server die there."""
        self.at.write_text(step)
        told = act()
        try:
            code = self.writ.service.process.wait(20)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{step} was not reached") from None
        assert code == -signal.SIGKILL, f"{step}: the server ended with {code}:\n{self.writ.service.tail()}"
        self.at.unlink()
        self.keep()
        return told

    def keep(self):
        """Keeps the checkpoint of now: every later tree must be its continuation."""
        log = tlog.folder(self.writ)
        shutil.copy(log / "checkpoint", self.kept / f"{tlog.size(log)}-{len(list(self.kept.iterdir()))}")

    def forget_next_key(self):
        """Takes away a key that is published and never signed, so that the next trial can rotate again."""
        for key in (self.writ.folder / "data" / "keys").glob("token-*.key"):
            if re.fullmatch(r"token-[0-9]+\.key", key.name):
                key.unlink()

    def settle(self, marks_sent):
        """Ends what is open, stops the server in good order, and judges log and state."""
        tasks = self.operator.tasks()
        for task in tasks.values():
            if task["state"] == "open":
                status, told = self.operator.ask(f"/v1/tasks/{task['id']}/end", {})
                assert status == 200, (status, told)
        tasks = self.operator.tasks()
        assert self.writ.service.stop() == 0, "the server did not stop in good order"
        log, key = tlog.folder(self.writ), tlog.key(self.writ)
        tlog.own_verify(log, key)
        tlog.agrees(log, tasks)
        assert tlog.holds_all(log, self.received()) <= marks_sent, "the log holds a call that nobody made"
        for old in self.kept.iterdir():
            peers_say = tlog.run(tlog.check(log, key, old))
            assert peers_say.stdout.startswith("ok"), peers_say.stdout


def named_steps():
    """Every step that the product names."""
    found = set()
    for source in (peers.ROOT / "crates").glob("*/src/**/*.rs"):
        found.update(re.findall(r'"writ::step", at = "([^"]+)"', source.read_text(encoding="utf-8")))
    return found


@scenario("crash: killed at every step that the product names")
def steps(stage):
    known = {step for names in TRIALS.values() for step in names}
    named = {step for step in named_steps() if not step.startswith(ELSEWHERE)}
    assert known == named, f"steps without a trial, or trials without a step: {known ^ named}"
    records, marks = stage.folder / "helpdesk.db", set()
    with servers.helpdesk(stage.folder, records) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url})
        with writ:
            pass
        trial = Trial(writ, stage.folder, records)
        for what, names in TRIALS.items():
            for step in names:
                try:
                    _tried(trial, what, step, marks)
                except AssertionError as error:
                    raise AssertionError(f"{what} at {step}: {error}") from error


def _tried(trial, what, step, marks):
    with trial.writ.service, Agent(trial.writ, "helpdesk") as agent:
        task, token = agent.opened()
        if what == "start":
            assert _called(agent, token, marks), "a call before the kill failed"
            _killed_start(trial, step)
            assert trial.operator.active(token) and _called(agent, token, marks), "the task did not survive"
        else:
            globals()[f"_{what}"](trial, agent, step, task, token, marks)
        trial.settle(marks)
    if what == "rotate":
        trial.forget_next_key()


def _killed_start(trial, step):
    service = trial.writ.service
    service.stop(signal.SIGKILL)
    trial.at.write_text(step)
    dying = Service(service.command, service.log, ready=lambda: dying.process.poll() is not None, environment=service.environment)
    with dying:
        assert dying.process.returncode == -signal.SIGKILL, f"{step}: the start ended with {dying.process.returncode}"
    trial.at.unlink()
    service.__enter__()


def _called(agent, token, marks):
    mark = f"mark-{uuid.uuid4()}"
    marks.add(mark)
    return succeeded(agent.call(token, "reply_ticket", {"ticket_id": 4710, "body": mark}))


def _state(trial, task):
    status, told = trial.operator.ask(f"/v1/tasks/{task}")
    assert status == 200, (status, told)
    return told["state"], told["end_reason"]


def _died(trial, agent, step, what, **more):
    """Kills the server in an agent's command, starts it again, and gives what the agent was told."""
    trial.die(step, lambda: agent.begin(what, **more))
    told = agent.answer()
    assert "lost" in told, f"the agent was answered, though the server died before: {told}"
    trial.writ.service.__enter__()
    return told


def _issued(trial, agent, step, before, what, task, evidence):
    """The rest of what opening, renewing and replacing have in common: evidence counts once, durable or not."""
    again = agent.ask(what, task=task, evidence=evidence)
    if before:
        assert again.get("status") == 200, f"evidence that was never used is refused: {again}"
        return granted(again)
    assert again.get("status") == 400, f"evidence was used twice: {again}"
    return None


def _open(trial, agent, step, task, token, marks):
    evidence, known = trial.writ.evidence(), set(trial.operator.tasks())
    _died(trial, agent, step, "open", evidence=evidence)
    new = set(trial.operator.tasks()) - known
    assert len(new) == (step not in BEFORE), f"{len(new)} tasks were opened"
    _issued(trial, agent, step, step in BEFORE, "open", None, evidence)
    assert trial.operator.active(token) and _called(agent, token, marks), "another task of the agent suffered"


def _renew(trial, agent, step, task, token, marks):
    evidence, known = trial.writ.evidence(), set(trial.operator.tasks())
    _died(trial, agent, step, "renew", task=task, evidence=evidence)
    assert set(trial.operator.tasks()) == known, "a renewal opened a task"
    _issued(trial, agent, step, step in BEFORE, "renew", task, evidence)
    _, fresh = granted(agent.ask("renew", task=task))
    for each in (token, fresh):
        assert trial.operator.active(each) and _called(agent, each, marks), "the task or its token did not survive"


def _replace(trial, agent, step, task, token, marks):
    evidence, known = trial.writ.evidence(), set(trial.operator.tasks())
    _died(trial, agent, step, "replace", task=task, evidence=evidence)
    new = set(trial.operator.tasks()) - known
    if step in BEFORE:
        assert not new and _state(trial, task) == ("open", None), "replaced by half"
        assert _called(agent, token, marks), "the task did not survive"
        _, token_after = _issued(trial, agent, step, True, "replace", task, evidence)
        assert _called(agent, token_after, marks), "the new task is of no use"
    else:
        assert len(new) == 1, f"{len(new)} tasks were opened"
        _issued(trial, agent, step, False, "open", None, evidence)
    assert _state(trial, task) == ("ended", "superseded"), _state(trial, task)
    assert not trial.operator.active(token) and not _called(agent, token, marks), "a token of the replaced task counts"


def _end(trial, agent, step, task, token, marks):
    _died(trial, agent, step, "end", task=task, token=token)
    if step in BEFORE:
        # Nobody was told that it ended.
        assert _state(trial, task) == ("open", None) and _called(agent, token, marks), "the task did not survive"
    else:
        assert _state(trial, task) == ("ended", "completed"), _state(trial, task)
        assert not trial.operator.active(token) and not _called(agent, token, marks), "a token of an ended task counts"


def _revoke(trial, agent, step, task, token, marks):
    status, _ = trial.die(step, lambda: trial.operator.form("/oauth/revoke", token=token))
    assert status == 0, f"the operator was answered {status}"
    trial.writ.service.__enter__()
    if step in BEFORE:
        assert _called(agent, token, marks), "the token did not survive"
    else:
        assert not trial.operator.active(token) and not _called(agent, token, marks), "a revoked token counts"
    assert _state(trial, task) == ("open", None), "a token was revoked, and its task ended"


def _suspend(trial, agent, step, task, token, marks):
    status, _ = trial.die(step, lambda: trial.operator.ask(f"/v1/agents/{AGENT}/suspend", {}))
    assert status == 0, f"the operator was answered {status}"
    trial.writ.service.__enter__()
    if step == "commit.applied":
        assert _called(agent, token, marks), "the agent did not survive"
        return
    assert not trial.operator.active(token) and not _called(agent, token, marks), "a suspended agent acts"
    assert agent.ask("open").get("status") == 400, "a suspended agent opened a task"
    trial.writ.until(lambda: _state(trial, task) == ("ended", "agent"), "the suspended agent's task did not end")
    status, told = trial.operator.ask(f"/v1/agents/{AGENT}/resume", {})
    assert status == 200, told
    assert not _called(agent, token, marks), "a task came back with its agent"


def _reload(trial, agent, step, task, token, marks):
    """The policy loses the intent of the open task."""
    intent = trial.writ.folder / "policy" / "intents" / "everything.toml"
    rules = trial.writ.folder / "policy" / "everything.cedar"
    kept = intent.read_text(), rules.read_text()
    rules.write_text("// Nothing is permitted.\n")
    intent.write_text(kept[0].replace('"everything"', '"nothing"'))
    renamed = intent.rename(intent.with_name("nothing.toml"))
    # The folder is watched: who notices first reloads.
    trial.die(step, lambda: trial.operator.ask("/v1/policy/reload", {}))
    trial.writ.service.__enter__()
    status, told = trial.operator.ask("/v1/policy")
    assert status == 200 and told["intents"] == ["nothing"], told
    assert not _called(agent, token, marks), "a task whose intent is gone acts"
    trial.writ.until(lambda: _state(trial, task) == ("ended", "policy"), "a task whose intent is gone goes on")
    renamed.rename(intent).write_text(kept[0])
    rules.write_text(kept[1])
    status, told = trial.operator.ask("/v1/policy/reload", {})
    assert status == 200 and told["intents"] == ["everything"], told


def _rotate(trial, agent, step, task, token, marks):
    status, _ = trial.die(step, lambda: trial.operator.ask("/v1/keys/rotate", {}))
    assert status == 0, f"the operator was answered {status}"
    trial.writ.service.__enter__()
    assert trial.operator.active(token) and _called(agent, token, marks), "a token of the key before does not count"
    _, fresh = granted(agent.ask("renew", task=task))
    assert _called(agent, fresh, marks), "a token of now does not count"
    _, keys = trial.operator.ask("/oauth/jwks")
    assert len(keys["keys"]) == 2, "a key whose rotation broke off is forgotten"
    _, found = trial.operator.ask("/v1/audit/entries?type=keys.rotate&limit=1")
    detail = found["items"][0]["leaf"]["event"]["detail"]
    assert detail["published"], f"a key is published that the log does not name: {detail}"


def _call(trial, agent, step, task, token, marks):
    mark = f"mark-{uuid.uuid4()}"
    marks.add(mark)
    trial.die(step, lambda: agent.begin("call", token=token, name="reply_ticket", arguments={"ticket_id": 4710, "body": mark}))
    told = agent.answer()
    received = mark in trial.received()
    # Publishing follows by itself: what it publishes at the step may be an earlier entry, before the call or during it.
    by_itself = step.startswith("publish.")
    if not by_itself:
        sent = step in ("call.sent", "call.answered", "call.recorded")
        assert received == sent, f"the upstream {'did not receive' if sent else 'received'} the call"
        assert "lost" in told, f"the agent was answered: {told}"
    trial.writ.service.__enter__()
    _, told = trial.operator.ask(f"/v1/tasks/{task}")
    counted = (received, True) if by_itself else (step not in BEFORE,)
    assert told["calls_used"] in counted, f"{told['calls_used']} calls were counted"
    assert trial.operator.active(token) and _called(agent, token, marks), "the task did not survive"


def _hear(trial, agent, step, task, token, marks):
    """What an upstream says unasked: the labels are durable before the agent gets any of it."""
    trial.die(step, lambda: agent.begin("list", token=token, method="resources/list"))
    told = agent.answer()
    assert "lost" in told, f"the agent was answered: {told}"
    trial.writ.service.__enter__()
    _, told = trial.operator.ask(f"/v1/tasks/{task}")
    assert told["read_untrusted"] is True, f"the labels were forgotten: {told}"
    assert trial.operator.active(token) and _called(agent, token, marks), "the task did not survive"


@scenario("crash: a release build cannot be told to die", quick=True)
def release(stage):
    """What is there: the debug build knows the word, so the search is a search; a release build must not."""
    assert VARIABLE.encode() in PROGRAM.read_bytes(), "the debug build cannot die on demand"
    built = PROGRAM.parent.parent / "release" / "writ"
    if built.exists():
        assert VARIABLE.encode() not in built.read_bytes(), f"{built} can be told to die"
    guard = (peers.ROOT / "crates" / "writ" / "src" / "step.rs").read_text(encoding="utf-8")
    assert "#[cfg(not(debug_assertions))]\ncompile_error!" in guard, "a release build could hold the listener"
