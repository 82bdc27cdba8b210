# The fleet, and each node of its Ray cluster: docker build -t ev-twin .
#
# Without a network: scripts/wheels.sh before, and an image of Python that has wget (docs/compose.md).

FROM python:3.12.12-slim-bookworm AS build
WORKDIR /opt/ev-twin
COPY requirements.lock requirements-dev.lock requirements-nodeps.lock pyproject.toml wheels* /wheels/
COPY scripts/setup.sh scripts/
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What no run needs goes: installers, the packages' own tests, headers, maps of JavaScript, Ray's Java.
RUN cp /wheels/requirements*.lock /wheels/pyproject.toml . \
    && if compgen -G "/wheels/*.whl" >/dev/null; then \
         export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels UV_OFFLINE=1 UV_FIND_LINKS=/wheels; \
       fi \
    && UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 scripts/setup.sh run \
    && rm -rf .venv/bin/{uv,uvx,pip*} .venv/lib/python3.12/site-packages/{pip,pip-*,ray/jars} \
    && find .venv -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -rf {} + \
    && find .venv -name '*.map' -delete

FROM python:3.12.12-slim-bookworm
# KubeRay's probes, and the health checks here, call wget, which the image of Python lacks. Its version is Debian's.
# hadolint ignore=DL3008
RUN command -v wget >/dev/null \
    || (apt-get update -q && apt-get install -y -q --no-install-recommends wget && rm -rf /var/lib/apt/lists/*)
RUN useradd --uid 1000 --home-dir /data twin && install --directory --owner twin --group twin /data
WORKDIR /opt/ev-twin
COPY --from=build /opt/ev-twin/.venv .venv
COPY LICENSE pyproject.toml ./
COPY actors actors
COPY cluster/sql cluster/sql
COPY datasets datasets
COPY models models
COPY physics physics
COPY training training
COPY twin twin
ENV PATH=/opt/ev-twin/.venv/bin:$PATH \
    PYTHONPATH=/opt/ev-twin \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_worker_niceness=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    DO_NOT_TRACK=true
# Byte code of ours and of what ours loads. At run time nothing here is written: what is, is in /data and /tmp.
RUN python -m compileall -q actors datasets models physics training twin \
    && HOME=/tmp/home python -c 'import actors.prediction.feeder_actor, actors.prediction.pool, twin.cli, twin.fleet, twin.show.report' \
    && HOME=/tmp/home python -c 'import mlflow.server' \
    && rm -rf /tmp/home
ENV PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
VOLUME /data
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9100/health"]
ENTRYPOINT ["twin"]
