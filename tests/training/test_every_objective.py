"""Every objective there is, by its name alone: a run of it trains, stops, resumes to the same bits and is measured."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from decone import objectives
from decone.training.config import RunConfig
from decone.training.interrupt import Interrupted
from decone.training.loop import Trainer
from decone.training.run import Run

Build = Callable[..., RunConfig]
COMPOSED = ["threshold:margin=1+cosreg", "unlikelihood+agg:alpha=1,window=5", "scalegrad:gamma=0.5+label_smoothing"]


@pytest.mark.parametrize("method", [*objectives.names(), *COMPOSED])
def test_a_run_of_it_resumes_to_the_same_bits(method: str, build: Build) -> None:
    config = build(method=method, steps=12, evaluation__every=6, batch__size=4, batch__accumulate=2)
    undisturbed = Run.create(Path("undisturbed"), config)
    result = Trainer(config, undisturbed).train()
    losses = [line["loss"] for line in undisturbed.log_lines() if line["kind"] == "train"]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    polled = iter(range(100))
    stopped = Run.create(Path("stopped"), config)
    with pytest.raises(Interrupted):
        Trainer(config, stopped).train(stop=lambda: next(polled) >= 4)
    again = Trainer(config, stopped).train()
    assert again["measured"] == result["measured"]
    assert stopped.model_path.read_bytes() == undisturbed.model_path.read_bytes()
