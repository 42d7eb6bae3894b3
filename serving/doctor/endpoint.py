"""A server that runs: is it alive, ready, and is nothing open beside it that should not be?"""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from polyhead.serving.doctor.exchange import Answer, get
from polyhead.serving.doctor.finding import Finding, good, problem, warning

__all__ = ["closed", "endpoint"]

OLD_DAYS = 21  # of a certificate that are left
# Behind the port of inference, by offset: what must not answer from outside, and what its answer holds. Any other web
# server may have a port beside ours.
CLOSED = {1: ("/models", b'"models"'), 2: ("/metrics", b"polyhead_")}
SECONDS = 3.0


def endpoint(url: str) -> Iterator[Finding]:
    """How a running server is.

    Args:
        url: of its front door; of inference, where there is none, and then the side server two ports behind is asked.
    """
    base = url.rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        why = "it is to be where the server answers"
        yield problem("server", f"{url!r} is no URL", why, "--url http://127.0.0.1:8080")
        return
    try:
        live = get(f"{base}/v2/health/live", SECONDS)
    except ssl.SSLError as error:
        yield _untrusted(base, error)
        return
    if live is not None and live.status == 404:  # TorchServe itself: the side server knows
        side = _side(base)
        yield from [] if side is None else _bare(base)
        base = side or base
        live = get(f"{base}/v2/health/live", SECONDS)
    if live is None:
        yield problem(
            "server",
            f"nothing answers at {base}",
            "it has ended, is still starting, or a firewall is between",
            "its log; docker ps -a or kubectl describe pod; ss -ltn on its machine",
        )
        return
    if live.status == 400 and live.plain().get("type") == "https_required":
        mend = f"--url https://{parts.netloc}, or, on the server's own machine, its side server: port 8082"
        yield problem("server", f"{base} speaks HTTPS alone", "its front door refuses plain HTTP", mend)
        return
    if live.status != 200:
        what = f"{base}/v2/health/live answers {live.status}: {live.text()}"
        yield problem("server", what, "it is no Polyhead, or it is going down", "its log")
        return
    yield from _ready(base)
    if parts.scheme == "https":
        yield from _certificate(parts.hostname, parts.port or 443)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not _here(parts.hostname, port):
        yield closed(parts.hostname, port)


def _side(base: str) -> str | None:
    """The side server behind an address of inference, where it answers."""
    parts = urlsplit(base)
    if parts.port is None:
        return None
    side = f"{parts.scheme}://{parts.hostname}:{parts.port + 2}"
    answer = get(f"{side}/v2/health/live", SECONDS)
    return None if answer is None or answer.status == 404 else side


def _bare(base: str) -> Iterator[Finding]:
    if urlsplit(base).hostname in ("127.0.0.1", "localhost"):
        yield good("front door", f"none: TorchServe itself answers at {base}, on the loopback alone")
        return
    yield problem(
        "front door",
        f"none: TorchServe itself answers at {base}",
        "its HTTP layer gets no more fixes: bytes that were made for it can smuggle requests past any check",
        "polyhead serve --front-door, or a maintained proxy of your own before it",
    )


def _ready(base: str) -> Iterator[Finding]:
    answer = get(f"{base}/v2/health/ready", SECONDS)
    if answer is None:
        yield problem("ready", f"{base}/v2/health/ready gives no answer", "it is overloaded or hangs", "its log")
        return
    said = _said(answer)
    if answer.status == 200:
        yield good("ready", f"{base} is ready{said}")
        return
    why = "a model has not answered its golden samples through the real path for a while, or the server goes down"
    yield problem("ready", f"{base} is not ready ({answer.status}){said}", why, "docs/operations.md#not-ready")


def _said(answer: Answer) -> str:
    """What readiness says of the server and of each model."""
    said = answer.plain()
    models = said.get("models")
    if not isinstance(models, list):
        return f": {answer.text()}" if answer.status != 200 and answer.body else ""
    shown = [
        f"{one.get('name')}/{one.get('version')} {'ready' if one.get('ready') else one.get('fault') or 'not ready'}"
        for one in models
        if isinstance(one, dict)
    ]
    return f", {said.get('state', 'serving')}: {'; '.join(shown) or 'no model'}"


def _certificate(host: str, port: int) -> Iterator[Finding]:
    """How long the certificate is good for."""
    with (
        socket.create_connection((host, port), SECONDS) as plain,
        ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secured,
    ):
        certificate, protocol = secured.getpeercert() or {}, secured.version()
    ends = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), datetime.UTC)
    left = (ends - datetime.datetime.now(datetime.UTC)).days
    what = f"{protocol}, certificate until {ends:%Y-%m-%d}, {left} days"
    if left < OLD_DAYS:
        mend = "put the new certificate and key in the old ones' place: the front door reads them by itself"
        yield warning("certificate", what, "clients refuse an expired one", mend)
        return
    yield good("certificate", what)


def _untrusted(base: str, error: ssl.SSLError) -> Finding:
    reason = getattr(error, "verify_message", "") or error.reason or str(error)
    mend = "SSL_CERT_FILE=/path/to/ca.pem polyhead doctor …, or a certificate that names this host"
    return problem("certificate", f"{base}: {reason}", "clients refuse it likewise", mend)


def _here(host: str, port: int) -> bool:
    """Whether a host is this machine's loopback, where management and the side server answer as they should."""
    try:
        found = socket.getaddrinfo(host, port)
    except OSError:
        return True
    return all(str(address[4][0]).startswith(("127.", "::1")) for address in found)


def closed(host: str, port: int) -> Finding:
    """Management and the side server must not answer from outside."""
    opened = [port + k for k, (path, mark) in CLOSED.items() if _shows(f"http://{host}:{port + k}{path}", mark)]
    if opened:
        return problem(
            "exposure",
            f"{host} answers on {', '.join(map(str, opened))} besides {port}",
            "management and the side server are for the machine itself: who reaches them changes models",
            "publish the front door's port alone; a NetworkPolicy or a firewall for the others",
        )
    return good("exposure", f"{host} answers on {port}, and not on the ports of management and metrics behind it")


def _shows(url: str, mark: bytes) -> bool:
    answer = get(url, SECONDS)
    return answer is not None and answer.status == 200 and mark in answer.body
