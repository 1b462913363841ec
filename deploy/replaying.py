"""A store rebuilt from Kafka's topics, with a bar for each topic."""

from datetime import datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.errors import FlywheelError
from deploy.letters import reader_of_exports
from deploy.settings import Settings
from deploy.store import opened
from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.replaying import replay
from feedback.collector import Collector


def replayed(
    settings: Settings, options: KafkaOptions, since: datetime | None, console: Console
) -> dict[str, int]:
    """Write what the topics hold from `since` on into the store, and count what it then has. Raises `FlywheelError`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with opened(settings) as store, Progress(*columns, console=console) as progress:

        def show(topic: str, done: int, left: int) -> None:
            if topic not in bars:
                bars[topic] = progress.add_task(topic)
            progress.update(bars[topic], completed=done, total=done + left)

        try:
            replay(
                options, Collector(store), since=since, told=reader_of_exports(settings, store), progress=show
            )
        except BusError as error:
            raise FlywheelError(f"{error}; what has been written stays: begin again") from error
        return store.counts()
