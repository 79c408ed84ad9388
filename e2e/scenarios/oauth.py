"""OAuth clients that we did not write, against Writ's endpoints, with evidence of issuers that we did not
write: metadata, task by token exchange, DPoP, introspection, revocation, and what must be refused.
"""

import json
import urllib.error
import urllib.parse
import urllib.request

from harness import oidc, peers, servers, spire
from harness.processes import run
from harness.record import scenario
from harness.writ import AGENT, Writ


def _oauth4webapi(job):
    return json.loads(run([peers.node(), peers.npm() / "clients" / "oauth.mjs", job]).stdout)


def _authlib(job):
    return json.loads(run([peers.python(), peers.ROOT / "e2e" / "clients" / "oauth.py", job]).stdout)


def _judge_oauth4webapi(told, writ, upstream):
    assert told["metadata"]["issuer"] == writ.url
    assert told["resource_metadata"]["resource"] == writ.resource(upstream)
    assert told["resource_metadata"]["authorization_servers"] == [writ.url]
    assert told["token"]["token_type"].lower() == "dpop", told["token"]
    claims = told["claims"]
    assert claims["sub"] == AGENT and claims["intent"] == "everything" and claims["task"].startswith("tsk_"), claims
    assert claims["exp"] - claims["iat"] <= 900, "the token lives longer than minutes"
    assert told["use"] == 200, f"the token was not accepted: {told['use']}"
    assert told["use_as_bearer"] == 401, f"a bound token was accepted as a bearer token: {told['use_as_bearer']}"
    assert told["use_with_other_key"] == 401, f"another key's proof was accepted: {told['use_with_other_key']}"
    assert told["introspection"]["active"] is True and told["introspection"]["task"] == claims["task"]
    assert told["introspection_after"] == {"active": False}, told["introspection_after"]
    assert told["use_after"] == 401, f"a revoked token was accepted: {told['use_after']}"
    assert told["forged"] != "accepted", "evidence with a forged signature opened a task"
    assert told.get("replayed") != "accepted", "evidence was used twice"


def _judge_authlib(told, writ, upstream):
    assert told["header"]["typ"] == "at+jwt", told["header"]
    assert told["claims"]["cnf"]["jkt"] == told["thumbprint"], told["claims"]
    assert told["claims"]["client_id"] and told["claims"]["sub"] == AGENT
    assert told["introspection"]["active"] is True and told["revoked"] == 200
    assert told["introspection_after"] == {"active": False}
    assert told["stranger"] == 401, f"a wrong operator secret was answered {told['stranger']}"


@scenario("oauth: oauth4webapi, development issuer", quick=True)
def development(stage):
    with servers.helpdesk(stage.folder) as server, Writ(stage.folder, {"helpdesk": server.url}) as writ:
        told = _oauth4webapi(writ.job("helpdesk", evidence=writ.evidence(), single_use=True))
        _judge_oauth4webapi(told, writ, "helpdesk")


@scenario("oauth: oauth4webapi, DPoP nonce required")
def nonce(stage):
    with servers.helpdesk(stage.folder) as server, Writ(stage.folder, {"helpdesk": server.url}, nonce="required") as writ:
        told = _oauth4webapi(writ.job("helpdesk", evidence=writ.evidence()))
        _judge_oauth4webapi(told, writ, "helpdesk")


@scenario("oauth: Authlib, development issuer")
def authlib(stage):
    with servers.helpdesk(stage.folder) as server, Writ(stage.folder, {"helpdesk": server.url}) as writ:
        told = _authlib(writ.job("helpdesk", evidence=writ.evidence()))
        _judge_authlib(told, writ, "helpdesk")


@scenario("oauth: ID token of oidc-provider")
def openid(stage):
    with oidc.Issuer(stage.folder) as issuer, servers.helpdesk(stage.folder) as server:
        provider = (f'\n[[provider]]\nname = "idp"\nkind = "oidc"\nissuer = "{issuer.url}"\naudience = "{oidc.CLIENT}"\n'
                    f'jwks_url = "{issuer.discovery()["jwks_uri"]}"\nsingle_use = false\n')
        identity = ("idp", {"sub": "support-agent"})
        with Writ(stage.folder, {"helpdesk": server.url}, provider, [identity]) as writ:
            token = issuer.id_token("support-agent")
            _judge_oauth4webapi(_oauth4webapi(writ.job("helpdesk", evidence=token)), writ, "helpdesk")
            _judge_authlib(_authlib(writ.job("helpdesk", evidence=token)), writ, "helpdesk")
            stranger = issuer.id_token("somebody-else")
            told = run([peers.node(), peers.npm() / "clients" / "oauth.mjs", writ.job("helpdesk", evidence=stranger)], check=False)
            assert told.returncode != 0, "a user who is no agent opened a task"


@scenario("oauth: JWT-SVID of SPIRE")
def svid(stage):
    with spire.Spire(stage.folder) as issuer, servers.helpdesk(stage.folder) as server:
        provider = (f'\n[[provider]]\nname = "mesh"\nkind = "spiffe"\ntrust_domain = "{spire.DOMAIN}"\n'
                    f'workload_api = "{issuer.socket}"\nsingle_use = false\n')
        identity = ("mesh", {"sub": spire.WORKLOAD})
        with Writ(stage.folder, {"helpdesk": server.url}, provider, [identity]) as writ:
            token = issuer.jwt_svid(writ.url)
            _judge_oauth4webapi(_oauth4webapi(writ.job("helpdesk", evidence=token)), writ, "helpdesk")
            elsewhere = issuer.jwt_svid("https://elsewhere.test")
            told = run([peers.node(), peers.npm() / "clients" / "oauth.mjs", writ.job("helpdesk", evidence=elsewhere)], check=False)
            assert told.returncode != 0, "an SVID for another audience opened a task"


def _post(context, url, body, **headers):
    """Status and JSON of an answer."""
    asked = urllib.request.Request(url, body.encode(), {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(asked, timeout=10, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else text.decode()


DISCOVER = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}})
MODERN = {"content_type": "application/json", "accept": "application/json, text/event-stream",
          "mcp_protocol_version": "2026-07-28", "mcp_method": "server/discover"}


@scenario("oauth: X.509-SVID of SPIRE over mTLS")
def mutual(stage):
    """The client certificate is the evidence, and binds the token (RFC 8705): without it the token is nothing."""
    with spire.Spire(stage.folder) as issuer, servers.helpdesk(stage.folder) as server:
        provider = (f'\n[[provider]]\nname = "mesh"\nkind = "spiffe"\ntrust_domain = "{spire.DOMAIN}"\n'
                    f'workload_api = "{issuer.socket}"\nsingle_use = false\n')
        identity = ("mesh", {"sub": spire.WORKLOAD})
        with Writ(stage.folder, {"helpdesk": server.url}, provider, [identity], tls=True) as writ:
            certificate, key, _ = issuer.x509_svid()
            own, nobody = writ.context(certificate, key), writ.context()
            form = urllib.parse.urlencode({
                "grant_type": "client_credentials", "client_id": spire.WORKLOAD, "resource": writ.resource("helpdesk"),
                "authorization_details": json.dumps(writ.details())})
            status, token = _post(own, f"{writ.url}/oauth/token", form, content_type="application/x-www-form-urlencoded")
            assert status == 200 and token["token_type"] == "Bearer", (status, token)
            status, refused = _post(nobody, f"{writ.url}/oauth/token", form, content_type="application/x-www-form-urlencoded")
            assert status in (400, 401), f"no certificate, and answered {status}: {refused}"
            bearer = {"authorization": f"Bearer {token['access_token']}", **MODERN}
            status, said = _post(own, writ.resource("helpdesk"), DISCOVER, **bearer)
            assert status == 200 and "result" in said, (status, said)
            status, _ = _post(nobody, writ.resource("helpdesk"), DISCOVER, **bearer)
            assert status == 401, f"a certificate-bound token was accepted without the certificate: {status}"
