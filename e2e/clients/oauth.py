"""Authlib and joserfc as a client of Writ's OAuth endpoints: metadata by RFC 8414's rules, a task by token
exchange with a DPoP proof made by hand, the token checked with foreign JOSE code, introspection, revocation.
Usage: oauth.py JOB.json
"""

import json
import sys
import time
import urllib.request
import uuid

from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9068.claims import JWTAccessTokenClaims
from joserfc import jwk, jwt

with open(sys.argv[1], encoding="utf-8") as file:
    JOB = json.load(file)
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


class LoopbackMetadata(AuthorizationServerMetadata):
    """RFC 8414 wants https everywhere; on the loopback interface of a test there is none."""

    REGISTRY_KEYS = [key for key in AuthorizationServerMetadata.REGISTRY_KEYS
                     if not key.endswith("_endpoint") and key not in ("issuer", "jwks_uri")]


def main():
    metadata = fetched(f"{JOB['issuer']}/.well-known/oauth-authorization-server")
    LoopbackMetadata(metadata).validate()
    assert metadata["issuer"] == JOB["issuer"], metadata["issuer"]

    key = jwk.ECKey.generate_key("P-256")
    public = key.as_dict(private=False)

    def proved(url, headers, body):
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": {name: public[name] for name in ("kty", "crv", "x", "y")}}
        claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": str(uuid.uuid4())}
        return url, {**headers, "DPoP": jwt.encode(header, claims, key)}, body

    with OAuth2Client(client_id=JOB["client_id"], token_endpoint_auth_method="none") as client:
        client.register_compliance_hook("access_token_response", lambda response: response)
        client.register_client_auth_method(("proved", lambda _, method, url, headers, body: proved(url, headers, body)))
        client.token_endpoint_auth_method = "proved"
        token = client.fetch_token(
            metadata["token_endpoint"], grant_type=EXCHANGE, subject_token=JOB["evidence"],
            subject_token_type="urn:ietf:params:oauth:token-type:jwt", resource=JOB["resource"],
            authorization_details=json.dumps(JOB["details"]),
        )

    keys = jwk.KeySet.import_key_set(fetched(metadata["jwks_uri"]))
    opened = jwt.decode(token["access_token"], keys, algorithms=["ES256", "RS256", "PS256"])
    wanted = {"iss": {"essential": True, "value": JOB["issuer"]}, "aud": {"essential": True, "value": JOB["resource"]}}
    JWTAccessTokenClaims(opened.claims, opened.header, wanted).validate()
    thumbprint = key.thumbprint()

    operator = JOB["operator"]
    with OAuth2Client(operator["name"], operator["secret"], token_endpoint_auth_method="client_secret_basic") as asking:
        before = asking.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).json()
        revoked = asking.revoke_token(metadata["revocation_endpoint"], token=token["access_token"]).status_code
        after = asking.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).json()
    with OAuth2Client(operator["name"], "wrong", token_endpoint_auth_method="client_secret_basic") as stranger:
        refused = stranger.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).status_code

    print(json.dumps({
        "token": {name: value for name, value in token.items() if name != "access_token"},
        "header": opened.header, "claims": opened.claims, "thumbprint": thumbprint,
        "introspection": before, "revoked": revoked, "introspection_after": after, "stranger": refused,
    }))


main()
