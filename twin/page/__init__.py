"""The live page: a fleet in a browser, fed by MQTT as records come (`twin watch`, `twin run --page-port`).

It may import datasets and the MQTT target, and no Ray: it runs as a process of its own and asks the fleet nothing. Open
`fleet_view.py` first (what is known of each vehicle, as arrays, without MQTT and web), then `reader.py` (a broker's
messages into it) and `server.py` (it into browsers). What the browser does is in `static/page.js`.
"""
