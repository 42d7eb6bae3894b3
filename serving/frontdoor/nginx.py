"""nginx: where it is, and the configuration that makes it our front door."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polyhead.serving.cores import available_cores
from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.clients import client_maps
from polyhead.serving.frontdoor.counts import DIRECTIVES as COUNTS
from polyhead.serving.frontdoor.counts import PIPE
from polyhead.serving.frontdoor.refusals import Refusal, refusals
from polyhead.serving.frontdoor.routes import connection_zones, locations, sent_enough
from polyhead.serving.frontdoor.settings import FrontDoorSettings, listed

__all__ = ["TEMPORARY", "Place", "find_nginx", "render"]

CORES_PER_WORKER = 4
LEAST_SHUTDOWN = 600  # seconds that a worker which takes no more requests has for those it took
SPARE_FILES = 64  # logs, listening sockets, the like
# Folders that nginx makes for itself; those for protocols that we do not speak would lie where we may not write.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
# One object a line, in the keys of the other lines of the log (serving/logs.py). No query, no body, no key.
ACCESS = {
    "time": "$time_iso8601",
    "level": "info",
    "logger": "polyhead.frontdoor.access",
    "request": "$polyhead_request_id",
    "client": "$remote_addr",
    "key": "$polyhead_key_name",
    "method": "$polyhead_method",
    "path": "$polyhead_path",
    "status": "$status",
    "bytes_in": "$request_length",
    "bytes_out": "$bytes_sent",
    "seconds": "$request_time",
    "upstream_status": "$upstream_status",
    "upstream_seconds": "$upstream_response_time",
    "message": "$polyhead_method $polyhead_path $status",
}
# TorchServe's are texts: a request that was sent twice has two, with a comma between.
NUMBERS = frozenset(["status", "bytes_in", "bytes_out", "seconds"])


@dataclass(frozen=True)
class Place:
    """Where one door stands.

    Attributes:
        listen: addresses with ports, as nginx writes them: `0.0.0.0:8080`, `[::]:8080`.
        probe_port: on the loopback, without keys and limits.
        inference_port, side_port: of TorchServe and of the side server, on the loopback.
        folder: nginx's own.
        temporary: where bodies wait that are too long for memory; nginx's workers must reach it.
        retired: as in `Retired`.
        keys: names by API key.
        access_log: whether each request is logged.
        crashes: of nginx's workers; who counts anew after one, does not count what that one had.
    """

    listen: Sequence[str]
    probe_port: int
    inference_port: int
    side_port: int
    folder: Path
    temporary: Path
    retired: Path
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    access_log: bool = False
    crashes: int = 0


def find_nginx() -> Path:
    """nginx's executable, on the `PATH` or where Debian puts it.

    Raises:
        LaunchError: there is none.
    """
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which("nginx", path=os.pathsep.join(places))
    if found is None:
        raise LaunchError("no nginx, which the front door is made of: apt-get install nginx-light, or --no-front-door")
    return Path(found)


def render(settings: FrontDoorSettings, place: Place) -> str:
    """nginx's configuration. It holds the API keys: nobody else may read it."""
    answers = refusals(settings)
    sections = [_main(settings, place), "http {"]
    for part in (
        _http(settings, place),
        client_maps(settings, place.keys),
        sent_enough(settings),
        f'{COUNTS}access_log "{place.folder}/{PIPE}" polyhead_counts buffer=4k flush=1s;',
        _upstreams(settings, place),
        _server(settings, place, answers, public=True),
        _server(settings, place, answers, public=False),
    ):
        sections.append(_indented(part))
    return "\n".join([*sections, "}", ""])


def _main(settings: FrontDoorSettings, place: Place) -> str:
    workers = settings.workers or max(1, available_cores() // CORES_PER_WORKER)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.max_connections + SPARE_FILES
    files = most if hard == resource.RLIM_INFINITY else min(most, hard)
    # As root, nginx gives its workers to a user that may do nothing; else everything runs as who started us.
    user = f"user nobody {grp.getgrgid(pwd.getpwnam('nobody').pw_gid).gr_name};\n" if os.geteuid() == 0 else ""
    return f"""\
# Written by polyhead serve; it holds API keys.
daemon off;
{user}worker_processes {workers};
worker_rlimit_nofile {files};
pcre_jit on;
# Who is not done by then, as a body that trickles, is cut off: old workers do not stay for ever.
worker_shutdown_timeout {max(LEAST_SHUTDOWN, 2 * settings.answer_timeout)}s;
pid "{place.folder}/nginx.pid";
error_log stderr warn;
events {{
    worker_connections {files - SPARE_FILES};
}}"""


def _http(settings: FrontDoorSettings, place: Place) -> str:
    folders = "\n".join(f'{name}_temp_path "{place.temporary}/{name}";' for name in TEMPORARY)
    log = "\naccess_log /dev/stdout polyhead;" if place.access_log else ""
    line = ",".join(f'"{key}":{value if key in NUMBERS else _quoted(value)}' for key, value in ACCESS.items())
    zones = [f"limit_conn_zone $polyhead_address zone={zone}:10m;" for zone in connection_zones(place.crashes)]
    if settings.rate:
        zones.append(f"limit_req_zone $polyhead_client zone=polyhead_rate:10m rate={settings.rate}r/s;")
    limits = "\n".join(zones)
    return f"""\
map_hash_bucket_size 512;
map_hash_max_size 32768;
variables_hash_max_size 2048;
{folders}
log_format polyhead escape=json '{{{line}}}';{log}
default_type application/octet-stream;
server_tokens off;
tcp_nodelay on;
msie_padding off;
etag off;

# A request is read whole before anybody computes for it, and not for long.
client_header_timeout {settings.header_timeout}s;
client_body_timeout {settings.body_timeout}s;
send_timeout {settings.send_timeout}s;
keepalive_timeout {settings.keepalive_timeout}s;
keepalive_requests 10000;
reset_timedout_connection on;
lingering_time 5s;
lingering_timeout 2s;
client_header_buffer_size {min(8192, settings.max_header_bytes)};
large_client_header_buffers 4 {settings.max_header_bytes};
client_body_buffer_size {settings.body_buffer_bytes};
ignore_invalid_headers on;
underscores_in_headers off;
merge_slashes on;
port_in_redirect off;
absolute_redirect off;

limit_conn_status 429;
limit_req_status 429;
limit_conn_log_level info;
limit_req_log_level info;
{limits}

proxy_http_version 1.1;
proxy_request_buffering on;
proxy_connect_timeout 2s;
proxy_send_timeout {settings.answer_timeout}s;
proxy_read_timeout {settings.answer_timeout}s;
proxy_buffering on;
proxy_buffer_size 16k;
proxy_buffers 16 32k;
proxy_busy_buffers_size 128k;
# An answer that fits no buffer is read as fast as the client takes it: none is written to a disk.
proxy_max_temp_file_size 0;
proxy_pass_request_headers off;
proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;"""


def _upstreams(settings: FrontDoorSettings, place: Place) -> str:
    # TorchServe stands there twice, for nginx tries a request again on another server only. max_conns is of each.
    share = -(-settings.in_flight // 2)
    bound = f" max_conns={share}" if settings.in_flight else ""
    server = f"server 127.0.0.1:{place.inference_port}{bound} max_fails=0;"
    return f"""\
upstream polyhead_torchserve {{
    zone polyhead_torchserve 64k;
    {server}
    {server}
    keepalive 256;
    keepalive_requests 1000000;
    keepalive_timeout 60s;
}}
upstream polyhead_side {{
    server 127.0.0.1:{place.side_port} max_fails=0;
}}"""


def _server(settings: FrontDoorSettings, place: Place, answers: Mapping[int, Refusal], public: bool) -> str:
    if public:
        tls = " ssl" if settings.tls else ""
        listen = "".join(f"listen {each} default_server{tls} backlog=1024;\n" for each in place.listen)
        head = listen + _tls(settings) + _balancers(settings)
    else:
        head = f"listen 127.0.0.1:{place.probe_port} default_server;\naccess_log off;\n"
    body = head + "\n".join(["server_name _;", locations(settings, answers, public, place.retired, place.crashes)])
    return "server {\n" + _indented(body) + "\n}"


def _tls(settings: FrontDoorSettings) -> str:
    if not settings.tls:
        return ""
    files = settings.files
    lines = [
        f'ssl_certificate "{files["tls_certificate"]}";',
        f'ssl_certificate_key "{files["tls_key"]}";',
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;",
        "ssl_session_cache shared:polyhead_tls:5m;",
        "ssl_session_tickets off;",
    ]
    if settings.client_ca:
        # Whether one is required, clients.py says: whoever asks for health has none to show.
        lines += [
            f'ssl_client_certificate "{files["client_ca"]}";',
            "ssl_verify_client optional;",
            "ssl_verify_depth 3;",
        ]
        if settings.client_crl:
            lines.append(f'ssl_crl "{files["client_crl"]}";')
    return "\n".join(lines) + "\n"


def _balancers(settings: FrontDoorSettings) -> str:
    networks = [f"set_real_ip_from {network};" for network in listed(settings.trusted_proxies)]
    if not networks:
        return ""
    return "\n".join([*networks, "real_ip_header X-Forwarded-For;", "real_ip_recursive on;"]) + "\n"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
