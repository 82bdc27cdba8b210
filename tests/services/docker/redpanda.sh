#!/bin/bash
# Apache Kafka behind Redpanda's command line: of it the listeners count, and of its file whether topics make themselves.
set -euo pipefail
java=(java -XX:+UseSerialGC -Xmx384m -Djava.net.preferIPv4Stack=true
      -Dlog4j2.configurationFile=/usr/local/bin/log4j2.properties -cp '/opt/kafka/*')
data=/var/lib/redpanda/data

for option in "$@"; do
  case "$option" in
    --kafka-addr=*) listeners=${option#*=} ;;
    --advertise-kafka-addr=*) advertised=${option#*=} ;;
  esac
done
of() { sed -n "s/^$1: //p" /etc/redpanda/.bootstrap.yaml; }

cat >/tmp/server.properties <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:9093
advertised.listeners=$advertised
listener.security.protocol.map=inside:PLAINTEXT,outside:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=inside
log.dirs=$data
num.partitions=$(of default_topic_partitions)
auto.create.topics.enable=$(of auto_create_topics_enabled)
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
END
[ -e "$data/meta.properties" ] ||
  "${java[@]}" kafka.tools.StorageTool format --cluster-id=ZXYtYmF0dGVyeS10d2luMA -c /tmp/server.properties
exec "${java[@]}" kafka.Kafka /tmp/server.properties
