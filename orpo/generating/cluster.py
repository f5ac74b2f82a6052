"""The settings of a Ray cluster. Light: `--help` reads this."""

from dataclasses import dataclass
from importlib.util import find_spec

from orpo.command.errors import InputError
from orpo.command.settings import setting


@dataclass(kw_only=True)
class ClusterSettings:
    """Many machines that write (Ray Data; `uv sync --extra ray`)."""

    ray: str | None = setting(
        None, "a Ray cluster whose workers load the models: `auto`, its address, or `local` to start one here"
    )
    ray_workers: int = setting(2, "the most workers, each with a model of its own", at_least=1)
    ray_gpus: float = setting(0.0, "GPUs of each worker", at_least=0)
    ray_cpus: float = setting(1.0, "processors of each worker", at_least=0)

    def check_installed(self) -> None:
        """Raise InputError where a cluster is asked for and the package is not there."""
        if self.ray is not None and find_spec("ray") is None:
            raise InputError(
                "needs the package ray; `uv sync --extra ray` or `uv pip install 'ray[data]'` installs it",
                setting="ray",
            )

    def resources(self) -> dict[str, float]:
        """Return what a worker takes, in Ray's names."""
        return {"num_cpus": self.ray_cpus, **({"num_gpus": self.ray_gpus} if self.ray_gpus else {})}

    def batch_rows(self, rows: int, most: int) -> int:
        """Return how many rows a worker is handed at once: few enough that every worker gets some."""
        return max(1, min(most, -(-rows // self.ray_workers)))
