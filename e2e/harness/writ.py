"""Writ itself, as an operator would run it: `writ init`, a configuration of the scenario, `writ serve`,
approved tools, and a client's way in. Everything lives in the scenario's folder and ends with it.
"""

import hashlib
import json
import os
import shutil
import ssl
import time
import urllib.request

from . import peers, servers
from .processes import Service, free_port, run

POLICY = peers.ROOT / "e2e" / "policy"
AGENT = "e2e-agent"
PROGRAM = servers.BINARIES / "writ"

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
public_url = "{url}"
{tls}
[tokens]
dpop_nonce = "{nonce}"
{tokens}
[telemetry]
log_level = "info"
[client]
operator_secret_file = "operator.secret"
{ca}
[[operator]]
name = "admin"
secret_sha256 = "{secret_sha256}"
roles = ["admin", "auditor", "introspect"]
[[provider]]
name = "dev"
kind = "oidc"
issuer = "urn:writ:dev"
jwks_file = "dev/jwks.json"
dev_key_file = "dev/issuer.key"
"""

AGENT_FILE = """
owner = "e2e"
purpose = "Runs the end-to-end scenarios."
review_by = "2099-01-01"
intents = {intents}
"""


class Writ:
    """A running `writ serve`; use it with `with`.

    `upstreams` maps names to a URL or to a command; `providers` is text for `writ.toml`; `identities` are
    pairs of provider and claims by which the one agent proves itself; `nonce` is `optional` or `required`; `tls`
    serves HTTPS with a certificate of its own (`ca`) and asks clients for theirs; `tokens` is more text for that section.
    """

    program = PROGRAM
    policy = POLICY

    def __init__(self, folder, upstreams, providers="", identities=(), nonce="optional", tls=False, tokens=""):
        self.folder = folder / "writ"
        self.upstreams = upstreams
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.ca = self.folder / "server.pem" if tls else None
        run([self.program, "init", self.folder])
        secret = (self.folder / "operator.secret").read_text().strip()
        self.operator = {"name": "admin", "secret": secret}
        text = CONFIG.format(
            port=self.port, url=self.url, nonce=nonce, tokens=tokens, secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
            tls='tls = { cert = "server.pem", key = "server.key", client_certs = "request" }' if tls else "",
            ca='ca_file = "server.pem"' if tls else "",
        )
        if tls:
            self._make_certificate()
        text += providers + "".join(self._upstream(name, target) for name, target in upstreams.items())
        (self.folder / "writ.toml").write_text(text)
        self._write_agent([("dev", {"sub": AGENT}), *identities])
        self._write_policy()
        log = folder / "writ.log"
        self.service = Service([self.program, "serve", "--config", self.config], log, ready=self._ready, seconds=30)

    def _make_certificate(self):
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=writ.test", "-addext", "subjectAltName=IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", self.folder / "server.key",
             "-out", self.ca])
        (self.folder / "server.key").chmod(0o600)

    def context(self, certificate=None, key=None):
        """How a client speaks TLS to it, with a certificate of its own or without."""
        if not self.ca:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        if certificate:
            context.load_cert_chain(certificate, key)
        return context

    @property
    def config(self):
        return self.folder / "writ.toml"

    @staticmethod
    def _upstream(name, target):
        if isinstance(target, str):
            return f'\n[[upstream]]\nname = "{name}"\nowner = "e2e"\nurl = "{target}"\n'
        variables, words = {}, [str(word) for word in target]
        if words[0] == "/usr/bin/env":
            key, value = words[1].split("=", 1)
            variables, words = {key: value}, words[2:]
        table = "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in variables.items()) + " }"
        return (f'\n[[upstream]]\nname = "{name}"\nowner = "e2e"\ncommand = {json.dumps(words[0])}\n'
                f"args = {json.dumps(words[1:])}\nvars = {table}\n")

    def _write_agent(self, identities):
        shutil.rmtree(self.folder / "agents")
        (self.folder / "agents").mkdir()
        rules = "".join(
            f'[[identity]]\nprovider = "{provider}"\nclaims = {{ '
            + ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in claims.items()) + " }\n"
            for provider, claims in identities
        )
        intents = json.dumps(sorted(path.stem for path in (self.policy / "intents").glob("*.toml")))
        (self.folder / "agents" / f"{AGENT}.toml").write_text(AGENT_FILE.format(intents=intents) + rules)

    def _write_policy(self):
        shutil.rmtree(self.folder / "policy")
        shutil.copytree(self.policy, self.folder / "policy")
        for labels in (self.folder / "policy" / "tools").glob("*.toml"):
            if labels.stem not in self.upstreams:
                labels.unlink()
        for name in self.upstreams:
            # Declared, so that what a server says of itself is compared as well, not withheld.
            labels = self.folder / "policy" / "tools" / f"{name}.toml"
            written = labels.read_text() if labels.exists() else ""
            labels.write_text(written + "\n[unasked]\nsensitivity = \"public\"\n")
        intent = self.folder / "policy" / "intents" / "everything.toml"
        reach = ", ".join(json.dumps(name) for name in self.upstreams)
        intent.write_text(intent.read_text().replace("@REACH@", reach))

    def _ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=self.context()) as answer:
                return answer.status == 200
        except OSError:
            return False

    def __enter__(self):
        self.service.__enter__()
        try:
            for name in self.upstreams:
                self.command("upstream", "accept", name)
        except BaseException:
            self.service.stop()
            raise
        return self

    def __exit__(self, *_):
        self.service.stop()

    @staticmethod
    def until(condition, otherwise, seconds=15):
        """Waits for something that the server does by itself."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.05)

    def command(self, *words, **options):
        """Runs `writ` with this configuration."""
        return run([self.program, *words, "--config", self.config], **options)

    def resource(self, upstream):
        """The MCP endpoint of an upstream."""
        return f"{self.url}/mcp/{upstream}"

    def evidence(self, subject=AGENT, **changes):
        """A development identity token."""
        script = peers.npm() / "clients" / "evidence.mjs"
        return run([peers.node(), script, self.folder / "dev", subject, self.url, json.dumps(changes)]).stdout.strip()

    def details(self):
        """The declaration of the widest task."""
        return [{"type": "writ_task", "intent": "everything", "parameters": {}}]

    def job(self, upstream, **more):
        """What the OAuth clients and the injector need to know, in a file."""
        path = self.folder.parent / f"job-{upstream}.json"
        path.write_text(json.dumps({
            "issuer": self.url, "resource": self.resource(upstream), "details": self.details(), "client_id": AGENT,
            "subject": AGENT, "dev": str(self.folder / "dev"), "operator": self.operator, **more,
        }))
        return path

    def way_in(self, upstream):
        """A loopback endpoint that adds the token, serving until the block ends; its `url` is known inside.

        `writ exec` is the way; `WRIT_E2E_WAY=injector` takes the harness's own, to tell their faults apart.
        """
        injecting = os.environ.get("WRIT_E2E_WAY") == "injector"
        return Injector(self, upstream) if injecting else Exec(self, upstream)

    def exec(self, upstream, *words):
        """The command line that runs words with access to an upstream."""
        return [self.program, "exec", "--config", self.config, "--intent", "everything", "--upstream", upstream, "--dev", AGENT,
                *(["--", *words] if words else ["--stdio", upstream])]


class Injector(Service):
    """The loopback injector of the harness."""

    def __init__(self, writ, upstream):
        log = writ.folder.parent / f"injector-{upstream}-{free_port()}.log"
        script = peers.npm() / "clients" / "injector.mjs"
        super().__init__([peers.node(), script, writ.job(upstream)], log, ready=self._has_url)

    def _has_url(self):
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("http://")]
        self.url = lines[0] if lines else None
        return bool(lines)


class Exec(Service):
    """`writ exec` with a command that tells the endpoint it was given and then waits to be ended."""

    def __init__(self, writ, upstream):
        number = free_port()
        told = writ.folder.parent / f"endpoint-{upstream}-{number}"
        variable = f"WRIT_MCP_{upstream.upper().replace('-', '_')}_URL"
        command = writ.exec(upstream, "sh", "-c", f'echo "${variable}" > {told}.part && mv {told}.part {told} && exec sleep 3600')
        self.told = told
        super().__init__(command, writ.folder.parent / f"exec-{upstream}-{number}.log", ready=self._has_url)

    def _has_url(self):
        self.url = self.told.read_text().strip() if self.told.exists() else None
        return bool(self.url)
