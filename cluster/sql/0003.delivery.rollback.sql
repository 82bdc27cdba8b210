DROP TABLE rejected_records;
DROP TABLE sink_cursors;
