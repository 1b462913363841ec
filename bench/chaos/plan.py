"""What goes wrong, and when: drawn from a seed before anything runs."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

Victim = Literal["gateway", "delivery", "collector", "broker", "postgres"]
Server = Literal["broker", "postgres"]
_PAUSE = 0.5, 4.0  # seconds between two incidents, at least and at most
_HELD_UP = 0.05, 0.5  # seconds, at most, by which whatever goes over a slow connection is late
_SLOW = 1.0, 5.0  # seconds that connections stay slow
_FULL_SECONDS = 4.0


@dataclass(frozen=True)
class Kill:
    """`kill -9`; of several collectors, any one."""

    victim: Victim

    @property
    def name(self) -> str:
        """In words."""
        return f"kill -9 of {self.victim}"


@dataclass(frozen=True)
class Cut:
    """Every connection to the server ends at once, in the middle of whatever goes over it."""

    server: Server

    @property
    def name(self) -> str:
        """In words."""
        return f"connections to {self.server} cut"


@dataclass(frozen=True)
class Slow:
    """For some seconds, whatever goes to or from the server is late by up to `held_up` seconds."""

    server: Server
    held_up: float
    seconds: float

    @property
    def name(self) -> str:
        """In words."""
        return f"connections to {self.server} slow"


@dataclass(frozen=True)
class FullDisk:
    """For some seconds there is no room left."""

    seconds: float
    name = "disk full"


Incident = Kill | Cut | Slow | FullDisk


def plan(seed: int, kills: int) -> list[tuple[float, Incident]]:
    """What happens, in order, each with the seconds of quiet before it.

    All victims are killed equally often, the disk is full once, and for each two kills there is trouble on the network.
    """
    chance = random.Random(f"incidents {seed}")
    victims, servers = get_args(Victim), get_args(Server)
    incidents: list[Incident] = [Kill(victims[number % len(victims)]) for number in range(kills)]
    for number in range(kills // 2):
        server = servers[number // 2 % len(servers)]
        slow = Slow(server, round(chance.uniform(*_HELD_UP), 3), round(chance.uniform(*_SLOW), 3))
        incidents.append(slow if number % 2 else Cut(server))
    chance.shuffle(incidents)
    incidents.insert(chance.randint(kills // 3, kills), FullDisk(_FULL_SECONDS))
    return [(round(chance.uniform(*_PAUSE), 3), incident) for incident in incidents]
