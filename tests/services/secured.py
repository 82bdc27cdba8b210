"""The same servers with TLS, certificates of both sides, users and rights; and who signs the certificates."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tests.services.base import HOST, free_ports, run
from tests.services.kafka import Kafka
from tests.services.mosquitto import Mosquitto
from tests.services.postgres import Postgres

PASSWORD: Final = "canary-7f3a9c"


class Authority:
    """Signs certificates in `folder`: `NAME.pem`, `NAME.key` (PKCS 8) and `NAME.both.pem`; `ca.pem` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ev-twin tests {folder.name}")])
        own = self._signed(self._name, self._key.public_key(), ca=True, days=30)
        (folder / "ca.pem").write_bytes(own.public_bytes(Encoding.PEM))

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, days: int = 30) -> Path:
        """For the host of the tests and the user `name`; expired where `days` is below zero. Returns NAME.pem."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), ca=False, days=days)
        pem = certificate.public_bytes(Encoding.PEM)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for suffix, content in ((".pem", pem), (".key", secret), (".both.pem", secret + pem + self.ca.read_bytes())):
            (self.folder / f"{name}{suffix}").write_bytes(content)
        (self.folder / f"{name}.key").chmod(0o600)
        return self.folder / f"{name}.pem"

    def close(self, name: str, closed: str) -> None:
        """`closed.key`: the key of `name` behind a passphrase."""
        key = load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode()))
        (self.folder / f"{closed}.key").write_bytes(secret)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool, days: int) -> x509.Certificate:
        now = datetime.now(UTC)
        hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(HOST))])
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
        return (
            builder.add_extension(hosts, critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )


class SecuredKafka(Kafka):
    """`secured` wants SASL_SSL, SCRAM-SHA-512 and a client's certificate; `expired` has a certificate out of date.
    User `twin` may do everything, `stranger` nothing. `bootstrap_servers` is open, for those who count."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._authority = authority
        [self._secured, self._expired] = free_ports(2)

    @property
    def secured(self) -> str:
        return f"{HOST}:{self._secured}"

    @property
    def expired(self) -> str:
        return f"{HOST}:{self._expired}"

    def _format(self) -> list[str]:
        users = ("twin", "stranger")
        return [word for user in users for word in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={PASSWORD}]")]

    def _listeners(self) -> str:
        folder = self._authority.folder
        lines = [
            "super.users=User:ANONYMOUS;User:twin",
            "sasl.enabled.mechanisms=SCRAM-SHA-512",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "listener.security.protocol.map=SECURED:SASL_SSL,EXPIRED:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ]
        for name, certificate in (("secured", "server"), ("expired", "old")):
            login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            of = f"listener.name.{name}"
            lines += [
                f"{of}.sasl.enabled.mechanisms=SCRAM-SHA-512",
                f"{of}.scram-sha-512.sasl.jaas.config={login}",
                f"{of}.ssl.keystore.type=PEM",
                f"{of}.ssl.keystore.location={folder / f'{certificate}.both.pem'}",
                f"{of}.ssl.truststore.type=PEM",
                f"{of}.ssl.truststore.location={self._authority.ca}",
                f"{of}.ssl.client.auth=required",
            ]
        return "\n".join(lines) + "\n"

    def _written(self, text: str) -> str:
        more = f",SECURED://{self.secured},EXPIRED://{self.expired}"
        lines = [line + more if line.startswith(("listeners=", "advertised.listeners=")) else line
                 for line in text.splitlines()]  # fmt: skip
        return "\n".join(lines) + "\n" + self._listeners()


class SecuredMosquitto(Mosquitto):
    """`secured` wants TLS, a client's certificate and a password; `expired` has a certificate out of date. `port` is
    open, for those who count."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._authority = authority
        [self.secured, self.expired] = free_ports(2)

    def _prepare(self) -> None:
        if self._config.exists():
            return
        super()._prepare()
        passwords = self.directory / "passwords"
        run(["mosquitto_passwd", "-c", "-b", str(passwords), "twin", PASSWORD])
        folder = self._authority.folder
        with self._config.open("a") as file:
            file.write(f"password_file {passwords}\n")
            for port, certificate in ((self.secured, "server"), (self.expired, "old")):
                file.write(
                    f"listener {port} {HOST}\ncafile {self._authority.ca}\nrequire_certificate true\n"
                    f"certfile {folder / f'{certificate}.pem'}\nkeyfile {folder / f'{certificate}.key'}\n"
                )


class SecuredPostgres(Postgres):
    """Lets user `twin` in with TLS, a password and a certificate in that name. `certificate`: the server's."""

    def __init__(self, authority: Authority, certificate: str = "server") -> None:
        super().__init__()
        self._authority, self._certificate = authority, certificate

    def _prepare(self) -> None:
        super()._prepare()
        for suffix in (".pem", ".key"):
            copy = self.directory / f"server{suffix}"
            shutil.copy(self._authority.folder / f"{self._certificate}{suffix}", copy)
            copy.chmod(0o600)
            self._own(copy)
        shutil.copy(self._authority.ca, self.directory / "ca.pem")
        self._own(self.directory / "ca.pem")
        (self._data / "pg_hba.conf").write_text(
            f"hostssl all postgres {HOST}/32 scram-sha-256\n"
            f"hostssl all twin {HOST}/32 scram-sha-256 clientcert=verify-full\n"
        )

    def _command(self) -> list[str]:
        files = {"ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl_ca_file": "ca.pem"}
        options = [part for name, file in files.items() for part in ("-c", f"{name}={self.directory / file}")]
        return [*super()._command(), "-c", "ssl=on", *options]
