"""TLS and certificates of clients, with nginx itself."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.serving.frontdoor.test_door import eventually, is_ours
from tests.unit.serving.frontdoor.upstream import raw

KEY = {"X-Api-Key": "AliceAliceAliceAlice"}


class Authority:
    """Signs certificates; each is written as NAME.pem and NAME.key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._sign(self._subject, self._key, True).public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = x509.CertificateBuilder(self._subject, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1)).add_extension(names, critical=False)
        constraints = x509.BasicConstraints(ca=authority, path_length=None)
        return builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())

    def issue(self, name: str, named: bool = True) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if named else [])
        certificate = self._sign(subject, key, False)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return str(paths[0]), str(paths[1])

    def take_back(self, *certificates: str) -> Path:
        """The list of certificates that are no longer good."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._subject).last_update(now)
        builder = builder.next_update(now + datetime.timedelta(hours=1))
        for path in certificates:
            serial = x509.load_pem_x509_certificate(Path(path).read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(one)
        path = self.folder / f"{self.name}.crl"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def tls(authority) -> dict[str, str]:
    certificate, key = authority.issue("server")
    return {"tls_certificate": certificate, "tls_key": key}


def client(one, authority, certificate: tuple[str, str] | None = None, **versions: object) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(authority.path))
    for name, value in versions.items():
        setattr(context, name, value)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return httpx.Client(base_url=one.door.url.replace("127.0.0.1", "localhost"), verify=context, trust_env=False)


def test_the_door_speaks_tls_of_today_and_nothing_older(opened, authority, tls):
    one = opened(**tls)
    assert one.door.url.startswith("https://")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with client(one, authority, minimum_version=version, maximum_version=version) as http:
            assert http.post("/predictions/digits", content=b"{}").status_code == 200
    assert len(one.torchserve.seen) == 2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("AES128-SHA:@SECLEVEL=0")  # no forward secrecy
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(base_url=one.door.url, verify=old, trust_env=False) as http, pytest.raises(httpx.ConnectError):
        http.get("/v2")
    answer = raw(one.door.port, b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"https_required"' in answer
    assert httpx.get(f"{one.door.probe_url}/v2").status_code == 200  # the loopback's listener is plain


def test_clients_show_a_certificate_and_only_health_and_pages_are_open(opened, authority, tls, tmp_path):
    one = opened(**tls, client_ca=str(authority.path), access_log=True)
    with client(one, authority) as http:
        assert is_ours(http.post("/predictions/digits", content=b"{}"), 401, "unauthorized")
        assert "certificate" in http.get("/v2/models").json()["error"]
        assert http.get("/v2/health/ready").status_code == 200
    with client(one, authority, authority.issue("carol")) as http:
        assert http.post("/predictions/digits", content=b"{}").status_code == 200
    stranger = Authority(tmp_path, "stranger").issue("mallory")
    with client(one, authority, stranger) as http:
        assert is_ours(http.post("/predictions/digits", content=b"{}"), 400, "client_certificate")
        assert is_ours(http.get("/v2/health/ready"), 400, "client_certificate")
    assert len(one.torchserve.seen) == 1
    assert len(one.side.seen) == 1


def test_a_certificate_without_a_subject_is_one_and_has_a_rate_of_its_own(opened, authority, tls):
    one = opened(**tls, client_ca=str(authority.path), rate=1, burst=1)
    with client(one, authority, authority.issue("spiffe", named=False)) as http:
        assert {http.get("/v2/models").status_code for _ in range(4)} == {200, 429}
    with client(one, authority, authority.issue("spiffe2", named=False)) as http:
        assert http.get("/v2/models").status_code == 200


def test_a_certificate_that_was_taken_back_is_refused(opened, authority, tls, monkeypatch):
    monkeypatch.setattr("polyhead.serving.frontdoor.watch.SECONDS", 0.05)
    dave, erin = authority.issue("dave"), authority.issue("erin")
    one = opened(fresh=True, **tls, client_ca=str(authority.path), client_crl=str(authority.take_back(dave[0])))
    with client(one, authority, dave) as http:
        assert is_ours(http.get("/v2/models"), 400, "client_certificate")
    with client(one, authority, erin) as http:
        assert http.get("/v2/models").status_code == 200
    authority.take_back(dave[0], erin[0])

    def refused() -> bool:
        with client(one, authority, erin) as http:
            return http.get("/v2/models").status_code == 400

    assert eventually(refused)


@pytest.mark.parametrize(("mode", "certificate_alone", "key_alone"), [("required", 401, 401), ("optional", 200, 200)])
def test_key_and_certificate_are_both_asked_for_or_one_of_them(
    opened, authority, tls, known, mode, certificate_alone, key_alone
):
    one = opened(**tls, client_ca=str(authority.path), client_certificate=mode, api_keys=str(known))
    with client(one, authority, authority.issue("carol")) as http:
        assert http.get("/v2/models").status_code == certificate_alone
        assert http.get("/v2/models", headers=KEY).status_code == 200
        assert http.get("/v2/models", headers={"X-Api-Key": "x"}).status_code == certificate_alone
    with client(one, authority) as http:
        assert http.get("/v2/models", headers=KEY).status_code == key_alone
        assert http.get("/v2/models").status_code == 401


def test_a_renewed_certificate_is_taken(opened, authority, tls, tmp_path, monkeypatch):
    monkeypatch.setattr("polyhead.serving.frontdoor.watch.SECONDS", 0.05)
    copies = {name: tmp_path / name for name in tls}
    for name, path in copies.items():
        path.write_bytes(Path(tls[name]).read_bytes())
    one = opened(fresh=True, **{name: str(path) for name, path in copies.items()})

    def served() -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", one.door.port))).hex().encode()

    before = served()
    renewed = dict(zip(tls, authority.issue("server2"), strict=True))
    for name, path in copies.items():
        path.write_bytes(Path(renewed[name]).read_bytes())
    assert eventually(lambda: served() != before), one.lines
    copies["tls_certificate"].write_text("no certificate\n")
    assert eventually(lambda: any("keeps its old files" in line for line in one.lines))
    assert len(served()) > 100
