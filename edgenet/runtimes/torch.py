"""PyTorch: the reference itself, on the host. It takes no artefact, so `load` does not offer it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from edgenet.runtimes import Float32Array, UInt8Array, check_image


class TorchSession:
    """A reference network behind the shape that every runtime has."""

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        resolution: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Take a module from normalised (1, 3, H, W) to logits; `mean` and `std` in byte steps."""
        self._module = module.eval()
        self._shape = (1, resolution, resolution, 3)
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)
        self.version = f"torch {torch.__version__}"
        self.device = f"CPU ({torch.get_num_threads()} threads)"

    @torch.inference_mode()
    def run(self, image: UInt8Array) -> Mapping[str, Float32Array]:
        """Return `logits` (1, classes) for (1, H, W, 3) uint8 RGB."""
        check_image(image, self._shape)
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float()
        logits = self._module((pixels - self._mean) / self._std)
        return {"logits": np.array(logits.numpy(), np.float32)}

    def close(self) -> None:
        """Release the model."""
        self._module = torch.nn.Identity()
