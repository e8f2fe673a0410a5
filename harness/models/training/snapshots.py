"""Weights of single epochs, kept beside those that a training ends with, so that it can be looked at along its way."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.cache import write_atomically
from harness.base.errors import HarnessError, InputError
from harness.models.training.checkpoint import digest_of, epoch_file
from harness.models.training.state import storable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.contract.specs import Model


@dataclass(frozen=True)
class Snapshots:
    """The kept epochs of one training, written while it runs, so that a training that resumes has the earlier ones."""

    folder: Path  # beside the state of the training
    epochs: Sequence[int]

    def keep(self, epoch: int, model: Model) -> None:
        """Write the model's weights, if the epoch is to be kept."""
        from safetensors.torch import save

        if epoch in self.epochs:
            network: Any = model.classifier
            path = epoch_file(self.folder, epoch)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(storable(network.state_dict())))

    def copy_into(self, checkpoint: Path) -> dict[str, str]:
        """Copy the kept epochs into a checkpoint's folder; return their digests. Raises HarnessError for lost ones."""
        return {str(epoch): self._copied(epoch, checkpoint) for epoch in self.epochs}

    def _copied(self, epoch: int, checkpoint: Path) -> str:
        source, target = epoch_file(self.folder, epoch), epoch_file(checkpoint, epoch)
        if not source.is_file():
            raise HarnessError(f"the weights of epoch {epoch} are gone. Remove {self.folder} and train again")
        content = source.read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
        return digest_of(content)

    def remove(self) -> None:
        """Remove the files: they are in the checkpoint."""
        if self.epochs:
            shutil.rmtree(epoch_file(self.folder, 0).parent, ignore_errors=True)


def require_kept(epoch: int, kept: Sequence[int], *, recipe: str) -> None:
    """Raise InputError for an epoch whose weights the recipe does not keep."""
    if epoch not in kept:
        found = (
            f"Kept: {', '.join(map(str, kept))}"
            if kept
            else "Give it snapshots = 1, or another number of epochs"
        )
        raise InputError(f"the recipe {recipe!r} does not keep the weights of epoch {epoch}. {found}")
