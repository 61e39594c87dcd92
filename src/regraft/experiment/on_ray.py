"""Carries out cells on a Ray cluster: many processes and machines, and one store that all of them see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TaskError, first_line
from .grid import Cell
from .spec import Resources
from .store import Store
from .work import Outcome, carry_out

try:
    import ray
except ImportError as error:
    raise TaskError("Ray is not installed; install it with: pip install 'regraft[ray]'") from error


class OnRay:
    """Hands every cell to the cluster as soon as its needs are done; the cluster queues it for its resources.

    Args:
        resources: kind of cell -> what it takes.
        address: of a cluster; None starts one on this machine.
        trackers: where to show trainings.
        retries: how often a cell is tried again whose worker, or machine, was lost. Errors are not tried again.

    Raises:
        TaskError: no cluster at the address.
    """

    free = True

    def __init__(
        self,
        resources: Mapping[str, Resources],
        address: str | None = None,
        retries: int = 3,
        trackers: Sequence[str] = (),
    ) -> None:
        self._resources = resources
        self._trackers = trackers
        self._retries = retries
        self._pending: dict[Any, str] = {}
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise TaskError(f"cannot reach a Ray cluster at {address}: {first_line(error)}") from error
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        for kind, needs in resources.items():  # Ray would wait for ever
            if not any(m.get("CPU", 0) >= needs.cpus and m.get("GPU", 0) >= needs.gpus for m in machines):
                raise TaskError(
                    f"a {kind} cell asks for {needs.cpus:g} CPUs and {needs.gpus:g} GPUs, expected no more than one "
                    "machine of the cluster has; change resources in the file"
                )

    def submit(self, store: Store, cell: Cell) -> None:
        """Hand a cell to the cluster."""
        needs = self._resources.get(cell.kind, Resources())
        work = ray.remote(_on_worker).options(
            name=cell.label, num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=self._retries
        )
        self._pending[work.remote(store, cell, self._trackers, max(1, int(needs.cpus)))] = cell.key

    def next(self, patience: float | None) -> Outcome | None:
        """Wait for whichever cell ends first."""
        ended, _ = ray.wait(list(self._pending), num_returns=1, timeout=patience)
        if not ended:
            return None
        key = self._pending.pop(ended[0])
        try:
            return ray.get(ended[0])  # type: ignore[no-any-return]
        except ray.exceptions.RayError as error:  # its worker was lost too often, say
            cause = getattr(error, "cause", None) or error
            return Outcome(key, "failed", f"{type(cause).__name__}: {first_line(cause)}")


def _on_worker(store: Store, cell: Cell, trackers: Sequence[str], threads: int) -> Outcome:
    import datasets
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(threads)
    disable_progress_bar()
    datasets.disable_progress_bars()
    return carry_out(store, cell, trackers)
