DROP VIEW fleet_by_minute;
DROP TABLE fleet_minute;
