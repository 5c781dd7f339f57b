"""The failure detector: who has not been heard of for too long. Pure; time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Heartbeats:
    """When each member was last heard of, in monotonic seconds."""

    timeout_s: float
    last_s: dict[str, float] = field(default_factory=dict)

    def heard(self, instance_id: str, now_s: float) -> None:
        """Record a sign of life."""
        self.last_s[instance_id] = now_s

    def forget(self, instance_id: str) -> None:
        """Stop watching a member."""
        self.last_s.pop(instance_id, None)

    def expired(self, now_s: float) -> list[str]:
        """Members not heard of for longer than the timeout."""
        return [instance for instance, last in self.last_s.items() if now_s - last > self.timeout_s]
