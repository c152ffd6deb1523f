"""A model and its objective as one module, so that wrappers (DDP, FSDP, autocast) see the loss as part of forward."""

from jaxtyping import Int
from torch import Tensor, nn

from decone.models.nano import Nano
from decone.objectives import Loss, Objective


class Learner(nn.Module):
    """Maps a batch of windows to a loss."""

    def __init__(self, model: Nano, objective: Objective, engine: str = "auto") -> None:
        super().__init__()
        self.model, self.objective, self.engine = model, objective, engine
        objective.prepare(model.vocabulary)  # counters must be there before a checkpoint is read into them

    def forward(self, windows: Int[Tensor, "B T"], nll: bool = False) -> Loss:
        """Loss of windows whose inputs are [:, :-1] and targets [:, 1:]."""
        hidden = self.model(windows[:, :-1])
        loss: Loss = self.objective(hidden, self.model.head, windows[:, 1:], engine=self.engine, nll=nll)
        return loss
