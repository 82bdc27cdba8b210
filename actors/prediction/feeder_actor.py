"""A feeder as Ray starts it, connected to the pool on Serve. It has its own file because a feeder needs neither."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.prediction.feeder import Answer, Ask, Feeder
from actors.prediction.plan import FeederPlan


class FeederActor(Feeder):
    """Feeds from its start on; Ray restarts it by constructing it anew."""

    def __init__(self, plan: FeederPlan) -> None:
        super().__init__(plan, partial(pool_on_serve, plan.pool))
        self.start()


def pool_on_serve(name: str) -> Ask:
    """The way to ask the pool of this name; raises while it is not up."""
    handle: DeploymentHandle[Any] = serve.get_app_handle(name)

    def ask(inputs: npt.NDArray[np.float32]) -> Answer:
        answer: Answer = handle.predict_batch.remote(inputs)
        return answer

    return ask
