"""The front door: the `twin` command, settings, `Fleet` and `Vehicle` handles, the report. May import everything.

Open `cli.py` first, then `commands/run.py` and `fleet.py` (what a run is). `settings.py` defines every setting.
`books/` counts what was delivered. `show/` is what a person sees, `page/` what a browser shows live. `loop/` replaces
the model that serves.

    from twin import Fleet
    with Fleet(vehicles=1000, seed=1) as fleet:
        fleet.run("10min")
        print(fleet.vehicle("EV-000042").state())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twin.fleet import Fleet, Vehicle

__version__ = "0.1.0"
__all__ = ["Fleet", "Vehicle"]


def __getattr__(name: str) -> Any:
    # Ray and numba take seconds to import, and `twin --help` does not need them.
    if name in __all__:
        from twin import fleet

        return getattr(fleet, name)
    raise AttributeError(f"module 'twin' has no attribute {name!r}")
