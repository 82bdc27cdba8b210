"""The predictor by itself, without a run: what `serve deploy` and Kubernetes' RayService import.

    import_path: twin.served:application

Its settings are those of the pool and of the registry, from the environment of the cluster's nodes.
"""

from __future__ import annotations

from ray import serve

from actors.prediction.plan import PoolPlan
from actors.prediction.pool import application as pool_application
from actors.secret import Secret
from twin.errors import BadInput
from twin.model import chosen_model
from twin.settings import load_settings


def application(arguments: dict[str, str]) -> serve.Application:
    """The pool's replicas with their REST routes. Serve decides where they listen, so a token is asked for always."""
    if arguments:
        raise BadInput(f"expected the settings in the environment, got the arguments {', '.join(arguments)}")
    settings = load_settings({})
    pool = settings.pool
    if not pool.api_token:
        raise BadInput("expected an api_token (TWIN_API_TOKEN): Serve listens for more than this machine")
    model = chosen_model(settings)
    return pool_application(
        PoolPlan(
            name="",
            bundle=model.folder,
            model=model.plan,
            replicas=(pool.min_replicas, pool.replicas),
            queue=pool.rest_queue,
            rate=pool.rest_rate,
            token=Secret(pool.api_token, "TWIN_API_TOKEN"),
        )
    )
