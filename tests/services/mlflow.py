"""MLflow's tracking server, its web application run by uvicorn as `mlflow server` does, on SQLite.

With an `S3` its artefacts are there, and clients get them through the server. Without one they are in its own folder.
"""

from __future__ import annotations

import sys
import urllib.request
from typing import Self

from tests.services.base import HOST, Service, ServiceUnavailable
from tests.services.s3 import S3


class MLflow(Service):
    """`url` is what MLFLOW_TRACKING_URI takes."""

    name = "mlflow"
    _s3: S3 | None = None

    def with_artefacts_in(self, s3: S3) -> Self:
        """Before the start: where artefacts go."""
        self._s3 = s3
        return self

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.url}

    @classmethod
    def install(cls) -> None:
        from importlib.util import find_spec

        if find_spec("mlflow") is None:
            raise ServiceUnavailable("MLflow is not installed; install it with: make setup")

    def _prepare(self) -> None:
        (self.directory / "artifacts").mkdir(exist_ok=True)

    def _variables(self) -> dict[str, str]:
        own = str(self.directory / "artifacts")
        return {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{self.directory}/mlflow.db",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"s3://{self._s3.bucket}/artifacts" if self._s3 else own,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
            "AWS_MAX_ATTEMPTS": "1",
        } | (self._s3.environment() if self._s3 else {})

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app", "--app-dir", str(self.directory),
            "--host", HOST, "--port", str(self.port), "--no-access-log",
        ]  # fmt: skip

    def _check(self) -> None:
        with urllib.request.urlopen(f"{self.url}/health", timeout=3) as answer:
            assert answer.read() == b"OK"
