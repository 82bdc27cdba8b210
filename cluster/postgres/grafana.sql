-- Run once, when the database is made: a user for Grafana, who only reads, since whoever may edit a panel may send SQL.
\getenv password GRAFANA_PG_PASSWORD
CREATE ROLE grafana LOGIN PASSWORD :'password';
GRANT pg_read_all_data TO grafana;
