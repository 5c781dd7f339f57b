"""What the main worker tells Prometheus, read where it stands when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deltadatabase.gateway.ports import Rotations
from deltadatabase.gateway.rotation import Phase, RotationStatus

WALKED = frozenset({Phase.RESEALING, Phase.BLOCKED, Phase.FINISHED})
"""Phases in which the number of objects is known."""


class RotationMetrics(Collector):
    """How far a rotation of the master key is."""

    def __init__(self, rotation: Rotations) -> None:
        self._rotation = rotation

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        status = self._rotation.status()
        left = GaugeMetricFamily(
            "deltadatabase_key_objects_left",
            "Objects that may still be sealed with a former master key, as the last walk found; "
            "0 once it can be retired.",
            labels=["key_id"],
        )
        for key_id, objects in objects_left(status).items():
            left.add_metric([key_id], objects)
        yield left
        yield GaugeMetricFamily(
            "deltadatabase_rotation_running", "1 while a rotation goes on, else 0.", value=int(status.running)
        )
        yield GaugeMetricFamily(
            "deltadatabase_rotation_objects_damaged",
            "Objects that the last rotation could not open.",
            value=status.progress.damaged + status.progress.unreadable,
        )


def objects_left(status: RotationStatus) -> dict[str, int]:
    """Objects that may still need each former key; empty where nobody has looked."""
    former = [key_id for key_id in status.readable if key_id != status.primary]
    progress, count = status.progress, status.count
    if progress.to_key == status.primary and progress.phase in WALKED:
        left = progress.total - progress.checked + progress.damaged + progress.unreadable
        return dict.fromkeys(former, 0 if progress.phase is Phase.FINISHED else max(0, left))
    if count is not None and count.complete:
        return {key_id: count.keys.get(key_id, 0) for key_id in former}
    return {}
