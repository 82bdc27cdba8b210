"""Real servers for tests and for a person at the desk: Kafka, Mosquitto, PostgreSQL, TimescaleDB, S3,
MLflow, Prometheus, Alertmanager, Chromium, and a container engine of the tests' own.

    python -m tests.services install | start | stop | status

Each server is one small class with the same shape (`base.Service`): install, start, wait_ready, stop, kill, restart,
pid, port. All listen on 127.0.0.1 on free ports and keep their data in a folder of their own under the temporary
directory. Started by a test they die with it; started by the command they stay until `stop`. Read `base.py` first;
pytest fixtures are in `fixtures.py`, the command in `__main__.py`.
"""

from tests.services.alertmanager import Alertmanager
from tests.services.base import Service, ServiceFailed, ServiceUnavailable
from tests.services.chromium import Chromium
from tests.services.docker import Docker
from tests.services.grafana_schema import GrafanaSchema
from tests.services.kafka import Kafka
from tests.services.mlflow import MLflow
from tests.services.mosquitto import Mosquitto
from tests.services.postgres import Postgres
from tests.services.prometheus import Prometheus
from tests.services.s3 import S3
from tests.services.timescaledb import TimescaleDB

ALL: tuple[type[Service], ...] = (Kafka, Mosquitto, Postgres, TimescaleDB, S3, MLflow, Prometheus)

__all__ = [
    "ALL", "S3", "Alertmanager", "Chromium", "Docker", "GrafanaSchema", "Kafka", "MLflow", "Mosquitto", "Postgres",
    "Prometheus", "Service", "ServiceFailed", "ServiceUnavailable", "TimescaleDB",
]  # fmt: skip
