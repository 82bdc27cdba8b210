"""Apicurio Registry, which has the interface of Confluent's schema registry, from Maven (Java 17 or newer)."""

from __future__ import annotations

import shutil
import ssl
import urllib.request
from pathlib import Path

from tests.services.base import HOST, Service, ServiceFailed, ServiceUnavailable, cache_folder, install_once, run

VERSION = "2.6.13.Final"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"


class SchemaRegistry(Service):
    """`url` is what clients want. It keeps its schemas in memory, and speaks TLS with `certificate` (NAME.pem, beside
    NAME.key)."""

    name = "schema-registry"
    _app = cache_folder() / f"apicurio-{VERSION}"

    def __init__(self, *, tied: bool = True, certificate: Path) -> None:
        super().__init__(tied=tied)
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/apis/ccompat/v7"

    def environment(self) -> dict[str, str]:
        return {}

    @classmethod
    def install(cls) -> None:
        for program, package in (("java", "default-jre"), ("mvn", "maven")):
            if shutil.which(program) is None:
                raise ServiceUnavailable(f"the schema registry needs {program}; install it: apt-get install {package}")
        with install_once(cls._app, _ARTIFACT.encode()) as folder:
            if folder is None:
                return
            unpack = [f"{_PLUGIN}:unpack", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}"]
            try:
                run(["mvn", "-q", "-B", "-C", *unpack], cwd=folder)
            except ServiceFailed as error:
                raise ServiceUnavailable(f"Apicurio {VERSION} could not be fetched through Maven: {error}") from error

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        told = {
            "java.io.tmpdir": self.directory,
            "quarkus.log.level": "WARN",
            "quarkus.http.host": HOST,
            "quarkus.http.insecure-requests": "disabled",
            "quarkus.http.ssl-port": self.port,
            "quarkus.http.ssl.certificate.files": self._certificate,
            "quarkus.http.ssl.certificate.key-files": self._certificate.with_suffix(".key"),
        }
        options = [f"-D{name}={value}" for name, value in told.items()]
        jar = self._app / f"apicurio-registry-app-{VERSION}-runner.jar"
        return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *options, "-jar", str(jar)]

    def _check(self) -> None:
        trusting = ssl._create_unverified_context()  # who is asked for data verifies it; here it is only up or not
        with urllib.request.urlopen(f"{self.url}/subjects", timeout=5, context=trusting) as answer:
            answer.read()
