"""oidc-provider as a real OpenID issuer, and an ID token fetched from it as a browser would."""

import base64
import hashlib
import html
import json
import re
import secrets
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar, DefaultCookiePolicy

from . import peers
from .processes import Service, free_port

CLIENT, SECRET, CALLBACK = "workload", "workload-secret-for-tests", "http://127.0.0.1:9/callback"


class _StayPut(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Browser:
    """Follows redirects by hand, keeps cookies, submits forms."""

    def __init__(self):
        cookies = CookieJar(DefaultCookiePolicy(rfc2965=False, netscape=True))
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies), _StayPut())

    def get(self, url, form=None):
        """The final address and page; stops at the callback, which nobody serves."""
        for _ in range(12):
            if url.startswith(CALLBACK):
                return url, ""
            data = urllib.parse.urlencode(form).encode() if form is not None else None
            try:
                with self.opener.open(urllib.request.Request(url, data=data), timeout=10) as answer:
                    return url, answer.read().decode()
            except urllib.error.HTTPError as error:
                if error.code not in (302, 303, 307):
                    raise AssertionError(f"{url} answered {error.code}: {error.read()[:300]}") from error
                url, form = urllib.parse.urljoin(url, error.headers["Location"]), None
        raise AssertionError("too many redirects")


class Issuer:
    """A running oidc-provider; use it with `with`."""

    def __init__(self, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        script = peers.npm() / "clients" / "oidc_provider.mjs"
        discovery = f"{self.url}/.well-known/openid-configuration"
        self.service = Service([peers.node(), script, port], folder / "oidc-provider.log", discovery)

    def __enter__(self):
        self.service.__enter__()
        return self

    def __exit__(self, *_):
        self.service.stop()

    def discovery(self):
        """The provider's own description."""
        with urllib.request.urlopen(f"{self.url}/.well-known/openid-configuration", timeout=10) as answer:
            return json.load(answer)

    def id_token(self, user):
        """An ID token for a user: authorization code with PKCE, login and consent included."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        about = self.discovery()
        question = {"client_id": CLIENT, "response_type": "code", "scope": "openid", "redirect_uri": CALLBACK,
                    "code_challenge": challenge, "code_challenge_method": "S256", "state": secrets.token_urlsafe(8)}
        browser = Browser()
        url, page = browser.get(f"{about['authorization_endpoint']}?{urllib.parse.urlencode(question)}")
        for _ in range(4):
            if url.startswith(CALLBACK):
                break
            action = html.unescape(re.search(r'<form[^>]*action="([^"]+)"', page).group(1))
            prompt = re.search(r'name="prompt" value="([^"]+)"', page).group(1)
            form = {"prompt": prompt, **({"login": user, "password": "any"} if prompt == "login" else {})}
            url, page = browser.get(urllib.parse.urljoin(url, action), form)
        answer = urllib.parse.parse_qs(urllib.parse.urlparse(url).query)
        assert "code" in answer, f"no code came back: {url}"
        form = {"grant_type": "authorization_code", "code": answer["code"][0], "redirect_uri": CALLBACK, "code_verifier": verifier}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        request = urllib.request.Request(about["token_endpoint"], data=urllib.parse.urlencode(form).encode(),
                                         headers={"Authorization": f"Basic {basic}"})
        with urllib.request.urlopen(request, timeout=10) as tokens:
            return json.load(tokens)["id_token"]
