"""The wall clock of a running server is set, by an hour in either direction (libfaketime; the monotonic clock goes on as
it is): what was over stays over, what was used stays used, and when the clock is right again everything is.
"""

import glob
import time

from harness import servers, tlog
from harness.agent import Agent, Operator, granted, succeeded
from harness.record import Skip, scenario
from harness.writ import Writ

HOUR = 3600
READ = ("read_ticket", {"ticket_id": 4710})


class Clock:
    """The wall clock of one server."""

    def __init__(self, writ, folder):
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib/faketime/libfaketimeMT.so.1")
        if not found:
            raise Skip("libfaketime is not on this machine")
        self.file = folder / "clock"
        self.operator = Operator(writ)
        self.set(0)
        writ.service.environment.update({
            "LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        })

    def set(self, seconds):
        """Sets the server's clock so many seconds off the true time."""
        self.file.with_suffix(".new").write_text(f"{seconds:+d}\n")
        self.file.with_suffix(".new").rename(self.file)
        self.offset = seconds


def _settled(stage, writ, operator):
    """What is so at the end of every such day."""
    tasks = operator.tasks()
    assert writ.service.stop() == 0, "the server did not stop in good order"
    tlog.own_verify(tlog.folder(writ), tlog.key(writ))
    tlog.agrees(tlog.folder(writ), tasks)


def _ends(told, reason):
    return told["status"] == 401 and reason in str(told["body"]) + str(told["challenge"])


@scenario("clock: an hour forth and back again")
def forth(stage):
    with servers.helpdesk(stage.folder) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url}, tokens="lifetime_secs = 300")
        clock = Clock(writ, stage.folder)
        with writ, Agent(writ, "helpdesk") as agent:
            operator = Operator(writ)
            evidence = writ.evidence()
            task, token = agent.opened(evidence=evidence)
            _, revoked = granted(agent.ask("renew", task=task))
            proof = agent.ask("proof", token=token)["proof"]
            assert succeeded(agent.call(token, *READ, dpop=proof)), "a call before the jump failed"
            assert operator.form("/oauth/revoke", token=revoked)[0] == 200
            clock.set(HOUR)
            # Everything of before is over: tokens, proofs, evidence, the task.
            assert agent.call(token, *READ, ahead=HOUR)["status"] == 401, "a token that is an hour old counts"
            assert not operator.active(token)
            assert agent.ask("open")["status"] == 400, "evidence and proof of an hour ago count"
            writ.until(lambda: operator.ask(f"/v1/tasks/{task}")[1]["end_reason"] == "deadline", "the task did not end")
            later, later_token = agent.opened(ahead=HOUR)
            assert succeeded(agent.call(later_token, *READ, ahead=HOUR)), "nothing goes an hour later"
            # The server sweeps what has expired every ten seconds: used evidence and refused tokens must not go with it.
            time.sleep(12)
            assert succeeded(agent.call(later_token, *READ, ahead=HOUR)), "a token did not last"
            clock.set(0)
            assert not operator.active(token) and not operator.active(revoked), "a dead token came back to life"
            told = agent.ask("open", evidence=evidence)
            assert told["status"] == 400, "evidence was used twice"
            again = agent.call(token, *READ, dpop=proof)
            assert again["status"] == 401, f"a proof was used twice: {again}"
            assert agent.call(later_token, *READ)["status"] == 401, "a token from the future counts"
            # The right time again: nothing that is asked for now is refused, with the nonce that the answer gives.
            told = agent.ask("open")
            if told["status"] != 200:
                assert told["body"]["error"] == "use_dpop_nonce", told
                told = agent.ask("open", nonce=told["nonce"])
            _, fresh = granted(told)
            told = agent.call(fresh, *READ)
            assert succeeded(told) or succeeded(agent.call(fresh, *READ, nonce=told["nonce"])), "it did not recover by itself"
            _settled(stage, writ, operator)


@scenario("clock: an hour back and forth again")
def back(stage):
    with servers.helpdesk(stage.folder) as server:
        writ = Writ(stage.folder, {"helpdesk": server.url}, tokens="lifetime_secs = 30")
        clock = Clock(writ, stage.folder)
        # What happens now will be the future; what happened an hour ago is what must not come back.
        clock.set(HOUR)
        with writ, Agent(writ, "helpdesk") as agent:
            operator = Operator(writ)
            told = agent.ask("open", ahead=HOUR)
            task, token = granted(told)
            proof = agent.ask("proof", token=token, ahead=HOUR)["proof"]
            assert succeeded(agent.call(token, *READ, dpop=proof)), "a call before the jump failed"
            # Longer than a token lives.
            time.sleep(32)
            _, fresh = granted(agent.ask("renew", task=task, ahead=HOUR))
            assert agent.call(token, *READ, ahead=HOUR)["status"] == 401, "an expired token counts"
            # The clock goes back to where the proof was made, and to where the token of then had not expired.
            clock.set(HOUR - 30)
            told = agent.call(token, *READ, dpop=proof)
            assert told["status"] == 401, f"an expired token with a used proof counts again: {told}"
            told = agent.call(token, *READ, ahead=HOUR - 30)
            told = agent.call(token, *READ, ahead=HOUR - 30, nonce=told["nonce"])
            assert _ends(told, "expired"), f"an expired token counts again: {told}"
            # A full hour back: what was made before is of the future, and nothing but new evidence helps.
            clock.set(0)
            assert agent.call(fresh, *READ)["status"] == 401, "a token from the future counts"
            told = agent.ask("open")
            assert told["status"] == 400 and told["body"]["error"] == "use_dpop_nonce", told
            later, latest = granted(agent.ask("open", nonce=told["nonce"]))
            told = agent.call(latest, *READ)
            assert succeeded(told) or succeeded(agent.call(latest, *READ, nonce=told["nonce"])), "nothing goes after a jump back"
            # And forth again: where it had been nobody needs a nonce.
            clock.set(HOUR + 5)
            assert agent.call(latest, *READ, ahead=HOUR + 5)["status"] == 401, "a token that is an hour old counts"
            _, token = agent.opened(ahead=HOUR + 5)
            assert succeeded(agent.call(token, *READ, ahead=HOUR + 5)), "it did not recover by itself"
            _settled(stage, writ, operator)
