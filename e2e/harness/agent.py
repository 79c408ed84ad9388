"""An agent that does what a scenario says, one command at a time, and an operator over the REST interface."""

import base64
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from . import peers


class Agent:
    """One agent with one key (`clients/agent.mjs`), living until the `with` block ends.

    Each command answers `{"status", "body", "ms"}`, or `{"lost": why}` if no answer came.
    """

    def __init__(self, writ, upstream):
        self.writ = writ
        self.upstream = upstream
        self.process = None
        self.environment = None

    def __enter__(self):
        command = [peers.node(), peers.ROOT / "e2e" / "clients" / "agent.mjs", self.writ.job(self.upstream)]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def begin(self, what, **more):
        """Sends a command without waiting for its answer."""
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self):
        """The answer to the oldest command that has none yet."""
        return json.loads(self.process.stdout.readline())

    def ask(self, what, **more):
        """A command and its answer."""
        self.begin(what, **more)
        return self.answer()

    def opened(self, **more):
        """Opens a task; gives (task, token)."""
        told = self.ask("open", **more)
        assert told.get("status") == 200, f"no task was opened: {told}"
        return granted(told)

    def call(self, token, name, arguments, **more):
        """Calls a tool."""
        return self.ask("call", token=token, name=name, arguments=arguments, **more)


def granted(told):
    """Task and token of a token response."""
    return told["body"]["authorization_details"][0]["task"], told["body"]["access_token"]


def succeeded(told):
    """Whether a call was answered with a result that is no refusal."""
    result = told.get("body", {}).get("result") if isinstance(told.get("body"), dict) else None
    return bool(result) and not result.get("isError")


class Operator:
    """The REST interface as the operator with all roles sees it."""

    def __init__(self, writ):
        self.writ = writ

    def ask(self, path, body=None, method=None, timeout=10, **headers):
        """Status and JSON of an answer; `(0, why)` if none came."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"authorization": f"Bearer {self.writ.operator['secret']}", "content-type": "application/json", **headers}
        asked = urllib.request.Request(f"{self.writ.url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text.decode()
        except OSError as error:
            return 0, str(error)

    def form(self, path, **fields):
        """Sends a form as an enforcement point (HTTP Basic)."""
        basic = base64.b64encode(f"{self.writ.operator['name']}:{self.writ.operator['secret']}".encode()).decode()
        asked = urllib.request.Request(f"{self.writ.url}{path}", urllib.parse.urlencode(fields).encode(),
                                       {"authorization": f"Basic {basic}"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def active(self, token):
        """Whether introspection calls a token good."""
        status, told = self.form("/oauth/introspect", token=token)
        assert status == 200, (status, told)
        return told["active"]

    def tasks(self):
        """All tasks by id."""
        found, before = {}, ""
        while before is not None:
            status, told = self.ask(f"/v1/tasks?limit=100{before}")
            assert status == 200, (status, told)
            found.update({task["id"]: task for task in told["items"]})
            before = f"&before={told['next']}" if told["next"] else None
        return found

    def ready(self):
        """Status and body of the readiness check."""
        return self.ask("/readyz")
