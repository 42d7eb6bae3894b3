"""The door's paths: which go to TorchServe, which to the side server; everything else is 404."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from polyhead.serving.frontdoor.refusals import RETRY_AFTER, Refusal
from polyhead.serving.frontdoor.retired import unless_retired
from polyhead.serving.frontdoor.settings import FrontDoorSettings, listed

__all__ = ["FORWARDED", "connection_zones", "locations", "sent_enough"]

# Of a request to TorchServe these headers pass and no other: it takes some for orders (explain, describe, url_path,
# ts_request_sequence_id), and what a client writes must not pass for what the door says.
FORWARDED = (
    "Accept",
    "Content-Encoding",
    "Content-Type",
    "Inference-Header-Content-Length",
    "Traceparent",
    "Tracestate",
    "X-Polyhead-Heads",
    "X-Polyhead-Options",
)
TO_SIDE = ("Accept", "If-None-Match")
MODEL, VERSION = "[A-Za-z][A-Za-z0-9_-]*", "[0-9A-Za-z][0-9A-Za-z._-]*"
# The same, kept for the look whether that version still takes requests.
NAMED, OF = f"(?<polyhead_model>{MODEL})", f"(?<polyhead_version>{VERSION})"
PREDICT = (
    f"^/predictions/{NAMED}(/{OF})?$",
    f"^/v1/models/{NAMED}:predict$",
    f"^/v2/models/{NAMED}(/versions/{OF})?/infer$",
)
NAMES = re.compile("[?]<[a-z_]+>")
ONWARD = "/_door/torchserve"
CHUNKED = "/_door/chunked"
DOCUMENT = f"^/predictions/{NAMED}/{OF}/openapi[.]json$"  # a model's own, by its worker
HEALTH = "^/v2/health/(live|ready)$"
HEALTH_CONNECTIONS = 64  # of one address: it is open to all, and asked by balancers of which each waits for its answer
SIDE = f"^/v2(/models(/{MODEL}(/versions/{VERSION})?(/ready)?)?)?$"
OPEN_API = "^/openapi[.]json$"
CONSOLE = "^/(docs|console/[A-Za-z0-9._/-]*)?$"
# Paths as they were sent: what nginx would have to decode or to tidy is in no address of ours.
PLAIN = "^/[A-Za-z0-9._:/-]*([?]|$)"
UNTIDY = "^[^?]*(//|/[.][.]?(/|[?]|$))"
# Upstream statuses that TorchServe makes by itself; the handler makes none but 500, which is one of ours as well.
KILLED = 507
INTERCEPTED = (404, 405, 429, 500, 502, 503, 504, KILLED)


def locations(
    settings: FrontDoorSettings, answers: Mapping[int, Refusal], public: bool, retired: Path, crashes: int = 0
) -> str:
    """The locations of one server.

    Args:
        answers: by nginx's status.
        public: whether keys, rates and networks are looked at; the loopback's listener is for the pod alone.
        retired: the folder of what tells which versions take no requests.
        crashes: as in `connection_zones`.
    """
    guard = _guard(public)
    connections, of_health = connection_zones(crashes)
    limits = _limits(settings, public, connections)
    health = f"    limit_conn {of_health} {HEALTH_CONNECTIONS};\n" if public else ""
    parts = [
        _error_pages(answers, answers),
        "client_max_body_size 8k;",
        "add_header X-Request-Id $polyhead_request_id always;",
        "add_header X-Content-Type-Options nosniff always;",
        "root /nonexistent;",
        *(_predict(pattern, settings, guard, retired) for pattern in PREDICT),
        _document(guard, retired),
        _torchserve(settings, answers, limits),
        _side(HEALTH, guard, health),
        _side(SIDE, guard, limits),
        _side(OPEN_API, guard, limits),
        _metrics(settings, guard, limits, public),
        *([_side(CONSOLE, guard, limits)] if settings.console else []),
        "location / {\n" + guard + "    return 404;\n}",
        *([_chunked(settings, answers, limits)] if settings.chunked else []),
        *(_answer(code, refusal) for code, refusal in answers.items()),
    ]
    return "\n".join(parts)


def connection_zones(crashes: int) -> tuple[str, str]:
    """Where connections are counted: of health, and of all else.

    Args:
        crashes: of nginx's workers so far. Counts lie in memory that all workers share, and what one of them counted
            when it died is never taken back: so they begin anew, under another name.
    """
    return f"polyhead_connections_{crashes}", f"polyhead_health_{crashes}"


def sent_enough(settings: FrontDoorSettings) -> str:
    """The map that tells of a request whose worker was killed whether it is not sent again.

    So it is where it was sent twice, or where the first answer took longer than `retry_timeout`.
    """
    return f"""\
map "$upstream_status|$upstream_response_time" $polyhead_sent_enough {{
    default 0;
    "~," 1;
    "~[|]({_at_least(settings.retry_timeout)})[.]" 1;
}}"""


def _at_least(number: int) -> str:
    """A pattern of the whole numbers that are not less than this one."""
    digits = str(number)
    larger = [
        f"{digits[:place]}[{int(digit) + 1}-9][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if digit != "9"
    ]
    return "|".join([digits, f"[0-9]{{{len(digits) + 1},}}", *larger])


def _guard(public: bool) -> str:
    keys = "    if ($polyhead_refused) {\n        return 401;\n    }\n" if public else ""
    return (
        keys
        + '    if ($server_protocol !~ "^HTTP/1[.][01]$") {\n        return 505;\n    }\n'
        + f'    if ($request_uri !~ "{PLAIN}") {{\n        return 404;\n    }}\n'
        + f'    if ($request_uri ~ "{UNTIDY}") {{\n        return 404;\n    }}\n'
    )


def _retired(folder: Path) -> str:
    return unless_retired(folder, "$polyhead_model", "$polyhead_version")


def _methods(allowed: str) -> str:
    names = allowed.replace(", ", "|")
    return (
        f'    set $polyhead_allow "{allowed}";\n'
        f'    if ($request_method !~ "^({names})$") {{\n        return 405;\n    }}\n'
    )


def _limits(settings: FrontDoorSettings, public: bool, zone: str) -> str:
    lines = []
    if public and settings.connections:
        lines.append(f"    limit_conn {zone} {settings.connections};\n")
    if public and settings.rate:
        lines.append(f"    limit_req zone=polyhead_rate burst={settings.burst or settings.rate} nodelay;\n")
    return "".join(lines)


def _predict(pattern: str, settings: FrontDoorSettings, guard: str, retired: Path) -> str:
    """Goes on to TorchServe's location, for one location cannot do both.

    There the faults that TorchServe tells are told in our words (`proxy_intercept_errors`), while 400 and 413 are the
    handler's and must pass untouched; here they are nginx's own.
    """
    refused = "return 411;" if not settings.chunked else f"rewrite ^ {CHUNKED} last;"
    return (
        f'location ~ "{pattern}" {{\n{guard}{_methods("POST")}{_retired(retired)}'
        f"    if ($http_transfer_encoding) {{\n        {refused}\n    }}\n"
        f"    client_max_body_size {settings.max_body_bytes};\n"
        f"    rewrite ^ {ONWARD} last;\n}}"
    )


def _chunked(settings: FrontDoorSettings, answers: Mapping[int, Refusal], limits: str) -> str:
    """A body whose length is not known is read here, so that what is wrong with it is told in our words as well.

    The mirror is nginx's way to read a body before it is passed on; it asks a location that answers at once. Then the
    static module finds no file, as it shall, and TorchServe's location is next. So it is where a client asks for this
    location by its own name, which is why the path is looked at again.
    """
    pages = _error_pages([code for code in answers if code != 404], answers)
    return f"""\
location = {CHUNKED} {{
    internal;
{limits}    client_max_body_size {settings.max_body_bytes};
    mirror {CHUNKED}/read;
    log_not_found off;
    recursive_error_pages on;
{_indented(pages)}
    error_page 404 = @read;
}}
location @read {{
    recursive_error_pages on;
    if ($polyhead_path !~ "{NAMES.sub("", "|".join(PREDICT))}") {{
        return 404;
    }}
    rewrite ^ {ONWARD} last;
}}
location = {CHUNKED}/read {{
    internal;
    return 204;
}}"""


def _document(guard: str, retired: Path) -> str:
    """Has no body, so none of unknown length either: TorchServe's location would take it, however long it is."""
    return (
        f'location ~ "{DOCUMENT}" {{\n{guard}{_methods("GET")}{_retired(retired)}'
        f"    if ($http_transfer_encoding) {{\n        return 411;\n    }}\n    rewrite ^ {ONWARD} last;\n}}"
    )


def _torchserve(settings: FrontDoorSettings, answers: Mapping[int, Refusal], limits: str) -> str:
    """A prediction changes nothing, so one whose worker died is sent once more: then another worker has it.

    TorchServe says 500 of it, or 507 where the worker was killed, as by the kernel for its memory; nginx itself tries
    again after the first alone. After 503 nothing is: a queue that is full would get the request again at once.
    """
    again = settings.retry_timeout > 0
    first = "error timeout invalid_header http_500 non_idempotent" if again else "off"
    pages = _error_pages([code for code in INTERCEPTED if not (again and code == KILLED)], answers)
    second = (
        f"\nlocation @again {{\n    if ($polyhead_sent_enough) {{\n        return 503;\n    }}\n"
        f"{_indented(_error_pages(INTERCEPTED, answers))}\n{_proxied('off', settings)}}}"
        if again
        else ""
    )
    killed = f"    error_page {KILLED} = @again;\n" if again else ""
    inside = f"    internal;\n{limits}{killed}{_indented(pages)}\n{_proxied(first, settings)}"
    return f"location = {ONWARD} {{\n{inside}}}{second}"


def _proxied(retry: str, settings: FrontDoorSettings) -> str:
    headers = "\n".join(f"    proxy_set_header {name} $http_{name.lower().replace('-', '_')};" for name in FORWARDED)
    return f"""\
    client_max_body_size 0;
    recursive_error_pages on;
    proxy_intercept_errors on;
    proxy_pass http://polyhead_torchserve$polyhead_path;
    proxy_set_header Host localhost;
    proxy_set_header Connection "";
    proxy_set_header X-Request-Id $polyhead_request_id;
{headers}
    proxy_hide_header X-Request-Id;
    proxy_hide_header X-Content-Type-Options;
    proxy_next_upstream {retry};
    proxy_next_upstream_tries 2;
    proxy_next_upstream_timeout {settings.retry_timeout}s;
"""


def _side(pattern: str, guard: str, more: str) -> str:
    headers = "\n".join(f"    proxy_set_header {name} $http_{name.lower().replace('-', '_')};" for name in TO_SIDE)
    return f"""\
location ~ "{pattern}" {{
{guard}{_methods("GET, HEAD")}{more}    proxy_pass http://polyhead_side$polyhead_path;
    proxy_pass_request_body off;
    proxy_set_header Host localhost;
    proxy_set_header Connection close;
    proxy_set_header Content-Length "";
    proxy_set_header X-Request-Id $polyhead_request_id;
{headers}
    proxy_hide_header X-Request-Id;
    proxy_hide_header X-Content-Type-Options;
}}"""


def _metrics(settings: FrontDoorSettings, guard: str, limits: str, public: bool) -> str:
    networks = "".join(f"    allow {network};\n" for network in listed(settings.metrics_from))
    return _side("^/metrics$", guard, limits + (f"{networks}    deny all;\n" if public else ""))


def _error_pages(codes: Iterable[int], answers: Mapping[int, Refusal]) -> str:
    return "\n".join(f"error_page {code} ={answers[code].status} /_door/{code};" for code in codes)


def _answer(code: int, refusal: Refusal) -> str:
    headers = ["X-Request-Id $polyhead_request_id", "X-Content-Type-Options nosniff"]
    headers += [f"Retry-After {RETRY_AFTER}"] if refusal.again else []
    headers += ["Allow $polyhead_allow"] if refusal.status == 405 else []
    # As RFC 9110 has it: whoever answers 401 says which credentials would do.
    headers += ['WWW-Authenticate "Bearer realm=\\"polyhead\\""'] if refusal.status == 401 else []
    lines = "".join(f"    add_header {header} always;\n" for header in headers)
    body = refusal.body.replace("\\", "\\\\").replace("'", "\\'")
    return (
        f"location = /_door/{code} {{\n    internal;\n    default_type application/json;\n{lines}"
        f"    return {refusal.status} '{body}';\n}}"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
