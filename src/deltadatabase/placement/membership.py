"""Members, epoch, and each shard's owner and term. Pure: events in, moved shards out.

The rules (ARCHITECTURE section 3): every change of owner raises the epoch, the epoch never
passes what was reserved in the store beforehand, and a shard's term is the epoch at which
its present owner got it. A member that is draining owns what it has until that moves, and
is given nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deltadatabase.errors import Unavailable
from deltadatabase.placement.ring import shard_owners


@dataclass(slots=True)
class Member:
    """One joined instance of a worker."""

    worker_id: str
    instance_id: str
    draining: bool = False


@dataclass(slots=True)
class Placement:
    """The table that the router looks shards up in.

    Attributes:
        shards: number of shards of the database.
        epoch: the present epoch; the last one used.
        epoch_limit: no epoch above it may be used until more are reserved.
        owners: owning instance id of each shard, None while there is none.
        terms: term of each shard; 0 while it never had an owner.
    """

    shards: int
    epoch: int
    epoch_limit: int
    members: dict[str, Member] = field(default_factory=dict)
    owners: list[str | None] = field(init=False)
    terms: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.owners = [None] * self.shards
        self.terms = [0] * self.shards

    def add(self, member: Member) -> None:
        """Let a member in. It owns nothing until ``apply``."""
        self.members[member.instance_id] = member

    def drain(self, instance_id: str) -> None:
        """Give this member nothing new; ``pending`` then lists all it has."""
        if member := self.members.get(instance_id):
            member.draining = True

    def remove(self, instance_id: str) -> None:
        """End a membership; its shards are without an owner until ``apply``."""
        if self.members.pop(instance_id, None) is None:
            return
        for shard, owner in enumerate(self.owners):
            if owner == instance_id:
                self.owners[shard] = None

    def release(self) -> None:
        """Take every shard from its owner; ``apply`` then gives each a new term.

        Also where it finds nobody to give them to: no reply of a former owner is current any more.
        """
        self.owners = [None] * self.shards
        self.terms = [0] * self.shards

    def instance_of(self, worker_id: str) -> str | None:
        """Return the live instance of a worker id, if any."""
        return next((m.instance_id for m in self.members.values() if m.worker_id == worker_id), None)

    def pending(self) -> list[int]:
        """Shards whose owner is not the one that the ring names."""
        wanted = self._wanted()
        return [shard for shard, owner in enumerate(self.owners) if owner != wanted[shard]]

    def orphans(self) -> list[int]:
        """Shards without an owner."""
        return [shard for shard, owner in enumerate(self.owners) if owner is None]

    def owned_by(self, instance_id: str) -> int:
        """Number of shards that an instance owns now."""
        return sum(owner == instance_id for owner in self.owners)

    def apply(self, shards: Iterable[int]) -> list[int]:
        """Give each of ``shards`` to the member that the ring names now, under a new epoch.

        Returns the shards whose owner changed; the epoch is raised only if there are any.

        Raises:
            Unavailable: the reserved epochs are used up; nothing was changed.
        """
        wanted = self._wanted()
        moved = [shard for shard in shards if self.owners[shard] != wanted[shard]]
        if not moved:
            return moved
        if self.epoch >= self.epoch_limit:
            raise Unavailable("no epoch is reserved for a change of owners", code="no_epoch")
        self.epoch += 1
        for shard in moved:
            self.owners[shard] = wanted[shard]
            # A shard that loses its last owner gets a new term as well: late replies
            # of the former owner must not be taken for current ones.
            self.terms[shard] = self.epoch
        return moved

    def _wanted(self) -> Sequence[str | None]:
        eligible = {m.worker_id: m.instance_id for m in self.members.values() if not m.draining}
        if not eligible:
            # Nobody to move to: draining members keep what they have until they go.
            return [owner if owner in self.members else None for owner in self.owners]
        return [eligible[worker_id] for worker_id in shard_owners(eligible, self.shards)]
