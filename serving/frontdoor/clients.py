"""Who asks: request ids, API keys and certificates, as nginx's maps."""

from __future__ import annotations

from collections.abc import Mapping

from polyhead.serving.frontdoor.settings import FrontDoorSettings

__all__ = ["client_maps"]

# A sane id of the client's, else the trace-id of its traceparent (as serving/tracing.py has it), else one of ours.
REQUEST_ID = r"""
map $http_traceparent $polyhead_trace_id {
    default $request_id;
    "~^00-(?!0{32})(?<polyhead_trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$" $polyhead_trace;
}
map $http_x_request_id $polyhead_request_id {
    default $polyhead_trace_id;
    "~^[A-Za-z0-9._-]{1,128}$" $http_x_request_id;
}
# As they were sent, for the log: an answer of the door's own is a GET to nginx. What stands behind the ? is nobody's
# business.
map $request $polyhead_method {
    default "";
    "~^(?<polyhead_verb>[A-Z]+) " $polyhead_verb;
}
map $request_uri $polyhead_path {
    default "";
    "~^(?<polyhead_sent>[^?]*)" $polyhead_sent;
}
"""
# An address, as the limits count it: of IPv6 the network of 64 bits, for one machine may have every address of it.
NETWORK = r"""
map $binary_remote_addr $polyhead_address {
    default $binary_remote_addr;
    "~^(?<polyhead_prefix>[\s\S]{8})[\s\S]{8}$" $polyhead_prefix;
}
"""
# The paths that anybody may read: health for balancers, the pages without data; /metrics has its own rule.
OPEN = r"^/(v2/health/(live|ready)|metrics|console/.*|docs)?$"


def client_maps(settings: FrontDoorSettings, keys: Mapping[str, str]) -> str:
    """The maps that answer who a client is, and whether it is refused.

    They set `$polyhead_request_id`, `$polyhead_key_name` (never the key), `$polyhead_address` and `$polyhead_client`
    (what the limits count by), `$polyhead_refused` (401 where it is 1).

    Args:
        keys: names by API key.
    """
    return "\n".join([REQUEST_ID.strip(), NETWORK.strip(), _keys(keys), _limits(), _refused(settings)])


def _keys(keys: Mapping[str, str]) -> str:
    """nginx looks strings up in any casing, so the key found is held against the one given, by a backreference."""
    expected = "\n".join(f'    "{key}" "{key}";' for key in keys)
    names = "\n".join(f'    "{key}" "{name}";' for key, name in keys.items())
    return rf"""
map $http_authorization $polyhead_given_key {{
    default $http_x_api_key;
    "~*^Bearer +(?<polyhead_token>[A-Za-z0-9._~+/=-]+)$" $polyhead_token;
}}
map $polyhead_given_key $polyhead_expected_key {{
    default "";
{expected}
}}
map $polyhead_given_key $polyhead_found_name {{
    default "";
{names}
}}
map "$polyhead_given_key|$polyhead_expected_key" $polyhead_key_name {{
    default "";
    "~^(?<polyhead_same>[^|]+)[|]\k<polyhead_same>$" $polyhead_found_name;
}}
""".strip()


def _limits() -> str:
    # A certificate may name nobody in its subject, and somebody in a SAN alone: then its fingerprint is its name.
    # The probes of the loopback listener are counted nowhere: nginx does not count what has no key.
    return """
map $ssl_client_verify:$ssl_client_s_dn $polyhead_certificate {
    default "";
    "SUCCESS:" "certificate $ssl_client_fingerprint";
    "~^SUCCESS:(?<polyhead_subject>.+)$" "certificate $polyhead_subject";
}
map $polyhead_certificate $polyhead_no_key {
    default $polyhead_certificate;
    "" $polyhead_address;
}
map $polyhead_key_name $polyhead_client {
    default "key $polyhead_key_name";
    "" $polyhead_no_key;
}
""".strip()


def _refused(settings: FrontDoorSettings) -> str:
    """Who shows what the settings ask for is let in, and who asks for an open path."""
    either = settings.client_certificate == "optional"
    shown = []  # of `open:key:certificate`, with a 0, the name of a key, and a certificate's subject
    if settings.api_keys and settings.client_ca and not either:
        shown = ["^0:[^:]+:."]
    elif settings.api_keys or settings.client_ca:
        shown = [*(["^0:[^:]+:"] if settings.api_keys else []), *(["^0:[^:]*:."] if settings.client_ca else [])]
    default = 1 if shown else 0
    rules = [f'"~{pattern}" 0;' for pattern in ("^1:", *shown)]
    listed = "\n".join(f"    {rule}" for rule in rules)
    return f"""
map $uri $polyhead_open {{
    default 0;
    "~{OPEN}" 1;
}}
map "$polyhead_open:$polyhead_key_name:$polyhead_certificate" $polyhead_refused {{
    default {default};
{listed}
}}
""".strip()
