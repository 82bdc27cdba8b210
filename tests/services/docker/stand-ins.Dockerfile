# What stands in, under their names, for images that are in no package registry. Debian's packages are in `debian` (the
# servers) and `slim` (what an image of Python has, and wget).

FROM ev-twin-slim AS python
COPY python /usr/local
RUN ldconfig && ln -s python3.12 /usr/local/bin/python3 && ln -s python3 /usr/local/bin/python

FROM ev-twin-debian AS mosquitto
RUN useradd --uid 1883 mqtt && install -d -o mqtt -g mqtt /mosquitto /mosquitto/config /mosquitto/data
VOLUME /mosquitto/data

FROM ev-twin-debian AS prometheus
COPY prometheus /bin/prometheus
RUN install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]

FROM ev-twin-debian AS timescaledb
COPY postgres.sh /usr/local/bin/
RUN install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
USER postgres
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres.sh"]

FROM ev-twin-debian AS redpanda
COPY kafka /opt/kafka
COPY log4j2.properties redpanda.sh rpk /usr/local/bin/
RUN useradd redpanda && install -d -o redpanda -g redpanda /var/lib/redpanda/data
USER redpanda
VOLUME /var/lib/redpanda/data
ENTRYPOINT ["redpanda.sh"]

FROM ev-twin-debian AS minio
COPY minio mc rclone /usr/local/bin/
VOLUME /data
