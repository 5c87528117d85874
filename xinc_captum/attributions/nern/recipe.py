"""What decides how a fit ends, checked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The numbers of :meth:`NeRN.fit`, under its names.

    Raises:
        ValueError: one that cannot be.
    """

    steps: int = 1000
    lr: float = 5e-3
    batch_size: int = 128
    loss_weights: tuple[float, float, float] = (1.0, 1e-3, 1e-3)
    warmup: int = 0
    kernels_per_step: int | None = None
    optimizer: str = "adamw"
    patience: int | None = None
    noise_shape: tuple[int, ...] | None = None
    noise_range: tuple[float, float] = (-2.0, 2.0)
    seed: int = 0
    every: int = 100

    def __post_init__(self) -> None:
        """Check each."""
        for name in ("steps", "batch_size", "every", "kernels_per_step", "patience"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; wanted at least 1.")
        if not self.lr > 0 or self.warmup < 0:
            raise ValueError(f"lr is {self.lr} and warmup is {self.warmup}; wanted lr > 0 and warmup >= 0.")
        if len(self.loss_weights) != 3 or min(self.loss_weights) < 0 or not max(self.loss_weights) > 0:
            raise ValueError(
                f"loss_weights are {self.loss_weights}; wanted three numbers >= 0 (reconstruction, features, logits), "
                "not all 0."
            )
        if self.optimizer not in ("adamw", "radam"):
            raise ValueError(f"optimizer is {self.optimizer!r}; wanted 'adamw' or 'radam'.")
        if not self.noise_range[0] < self.noise_range[1]:
            raise ValueError(f"noise_range is {self.noise_range}; wanted the lower end first.")
