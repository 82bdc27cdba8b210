"""Operations: Ray, Serve and the servers behind the sinks."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from scripts.dashboards import panels as p

_BROKERS = """
**Brokers and the database** are seen from here as their clients see them: whether they take records, how soon they
acknowledge, and how often they had to be connected to again. Scrape their own exporters for what goes on inside.
"""


def board() -> Dashboard:
    """The dashboard."""
    latency = "ray_serve_deployment_processing_latency_ms_bucket"
    panels = [
        p.rows("Targets", "What Prometheus scrapes; 1 answers.", {"": "up"}, span=12, height=6),
        p.figures("Nodes of Ray", "Alive.", {"nodes": "sum(ray_cluster_active_nodes)"}, span=4, height=6),
        p.figures("Actors of Ray", "By state.", {"{{State}}": 'sum by (State) (ray_actors{Source="gcs"}) > 0'}, span=8,
                  height=6),
        p.over_time("Processor", "Of each node.", {"{{ip}}": "ray_node_cpu_utilization"}, unit="percent", least=0),
        p.over_time("Memory", "Used by everything on the node.",
                    {"{{ip}}": "ray_node_mem_used", "{{ip}} there is": "ray_node_mem_total"}, unit="bytes", least=0),
        p.over_time("Room on the disk", "Of each node.", {"{{ip}}": "ray_node_disk_free"}, unit="bytes", least=0),
        p.over_time("Processor by part", "Of one core; Ray's processes and ours by Ray's name for them.",
                    {"{{Component}}": "sum by (Component) (ray_component_cpu_percentage)"}, unit="percent", least=0),
        p.over_time("Memory by part", "Resident.",
                    {"{{Component}}": "sum by (Component) (ray_component_rss_mb) * 1e6"}, unit="bytes", least=0),
        p.over_time("Object store", "Used, of all nodes.", {"used": "sum(ray_object_store_used_memory)",
                    "spilled": "sum(ray_spill_manager_objects_bytes)"}, unit="bytes", least=0),
        p.over_time("Logical CPUs", "Taken by actors, and free.",
                    {"{{State}}": 'sum by (State) (ray_resources{Name="CPU"})'}, least=0),
        p.over_time("Actors", "Alive, by class.",
                    {"{{Name}}": 'sum by (Name) (ray_actors{Source="gcs", State="ALIVE"}) > 0'}, least=0),
        p.over_time("Work in shards", "Of one core, by all shards.",
                    {"shards": "rate(ev_compute_seconds_total[$__rate_interval])"}, unit="percentunit", least=0),
        p.over_time("Serve: replicas", "Healthy, by deployment.",
                    {"{{deployment}}": "sum by (deployment) (ray_serve_deployment_replica_healthy)",
                     "Predictor, wanted": "ev_predictor_replicas_wanted"}, least=0),
        p.over_time("Serve: requests", "A second, by deployment.",
                    {"{{deployment}}": "sum by (deployment) (rate(ray_serve_deployment_request_counter_total"
                     "[$__rate_interval]))"}, least=0),
        p.over_time("Serve: latency", "Of a request in a replica.",
                    {"{{deployment}} p50": f"histogram_quantile(0.5, sum by (deployment, le) (rate({latency}"
                     "[$__rate_interval])))",
                     "{{deployment}} p99": f"histogram_quantile(0.99, sum by (deployment, le) (rate({latency}"
                     "[$__rate_interval])))"}, unit="ms", least=0),
        p.over_time("Serve: queue", "Requests that wait for a replica, and that are in one.",
                    {"waiting": "sum(ray_serve_deployment_queued_queries)",
                     "in a replica": "sum(ray_serve_replica_processing_queries)"}, least=0),
        p.over_time("Servers behind the sinks", "1 while it takes no records.",
                    {"{{part}}": 'ev_waiting{part!~"fleet|predictor"}'}, least=0, most=1),
        p.over_time("Connected again", "Connections given up and made again, since the run's start.",
                    {"{{sink}}": "ev_sink_retries_total"}, least=0),
        p.note(_BROKERS, height=3),
    ]  # fmt: skip
    return p.board("operations", "Ray, Serve and the servers behind the sinks.", panels)
