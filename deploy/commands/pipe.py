"""kafka, dead-letters, replay: the way of events, from the operator's side, whether the gateway runs or not."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deploy.commands import settings_of
from deploy.errors import FlywheelError
from feedback.bus.kafka.options import KafkaOptions

if TYPE_CHECKING:
    from deploy.settings import Settings
    from feedback.store.letters import Letter

_SHOWN = 12  # characters of a dead letter's id that tell it from others


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Kafka: its topics, its state, and a collector.")
    group.command()(init)
    group.command("status")(kafka_status)
    group.command()(collect)
    app.add_typer(group, name="kafka")
    letters = typer.Typer(
        no_args_is_help=True,
        help="""Records that no collector could read: kept with the reason, until they can be.

    They come from other producers on the topics, or from a gateway of a later version than the collector. After an
    update, `flywheel dead-letters replay --all` gives them another try.""",
    )
    letters.command("list")(list_letters)
    letters.command()(show)
    letters.command("replay")(replay_letters)
    app.add_typer(letters, name="dead-letters")
    app.command()(replay)


def init(context: typer.Context) -> None:
    r"""Make the topics that are missing, as \[kafka] describes them. Changes nothing about those that are there.

    Exit code 1 when one is otherwise than asked for: fewer partitions or replicas, or another retention. `flywheel up`
    does the same at its start; run it yourself where others operate the cluster, or before you do.

    flywheel kafka init
    FLYWHEEL_KAFKA__BOOTSTRAP_SERVERS='["kafka:9092"]' flywheel kafka init
    """
    from feedback.bus.base import BusError
    from feedback.bus.kafka import topics

    options = _kafka(settings_of(context))
    console = Console(soft_wrap=True, highlight=False)
    try:
        before = topics.differences(options)
        try:
            made = topics.create(options)
        except BusError:  # those that differ: said below
            made = []
        after = topics.differences(options)
    except BusError as error:
        raise FlywheelError(str(error)) from error
    for line in before:
        console.print(f"made, as {line}" if line not in after else line, markup=False)
    if after:
        raise FlywheelError(
            f"{len(after)} things are otherwise than asked for: change them with Kafka's own tools, or [kafka]"
        )
    console.print(f"{len(made)} topics made; all are as asked for")


def kafka_status(context: typer.Context) -> None:
    """Show brokers, topics and partitions, and how many records of each topic the collectors have not collected yet."""
    from deploy.cluster import look
    from feedback.bus.base import BusError

    options = _kafka(settings_of(context))
    try:
        cluster = look(options)
    except BusError as error:
        raise FlywheelError(f"{error}; see [kafka], and `flywheel doctor`") from error
    right = [Column(name, justify="right") for name in ("partitions", "replicas", "lag")]
    table = Table(Column("topic", no_wrap=True), *right)
    for topic in cluster.topics:
        lag = "" if topic.lag is None else str(topic.lag)
        table.add_row(topic.name, str(topic.partitions), str(topic.replicas), lag)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"brokers     {', '.join(cluster.brokers)}")
    console.print(f"collectors  {cluster.collectors} in the group {options.group}")
    if cluster.topics:
        console.print(table)
    else:
        console.print(f"no topic {options.prefix}.…: `flywheel kafka init` makes them")


def collect(context: typer.Context) -> None:
    r"""Write Kafka's events to the store until SIGTERM or Ctrl-C: one collector, in the foreground.

    `flywheel up` starts \[feedback] collectors of them itself. Start more anywhere, up to the number of partitions:
    they share the work, and take over from each other.
    """
    from deploy.supervisor import collector_program

    settings = settings_of(context)
    program = collector_program(settings, _kafka(settings), 0)
    os.execve(program.command[0], list(program.command), {**os.environ, **program.environment})  # noqa: S606  # no shell


def list_letters(context: typer.Context) -> None:
    """List all dead letters, the newest first, each with the reason why it is one."""
    from deploy.letters import newest_first

    table = Table(
        Column("id", no_wrap=True),
        Column("came", no_wrap=True),
        Column("bytes", justify="right"),
        Column("reason", overflow="fold"),
    )
    letters = newest_first(settings_of(context))
    for letter in letters:
        came = f"{letter.time:%Y-%m-%d %H:%M:%S}"
        table.add_row(letter.id[:_SHOWN], came, str(letter.size), Text(letter.reason))
    Console().print(table if letters else "no dead letters")


def show(
    context: typer.Context,
    letter_id: Annotated[str, typer.Argument(help="As `flywheel dead-letters list` shows it.")],
) -> None:
    r"""Print one dead letter as it came. Piped, its bytes are those that came; a terminal gets no control characters.

    flywheel dead-letters show 3f2a90c1d4e5
    flywheel dead-letters show 3f2a90c1d4e5 | python -m json.tool
    """
    from deploy.letters import shown

    letter, data = shown(settings_of(context), letter_id)
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{letter.id}, {letter.size} bytes, came {letter.time:%Y-%m-%d %H:%M:%S} UTC\n{letter.reason}",
        markup=False,
    )
    if sys.stdout.isatty():
        text = data.decode(errors="backslashreplace")
        sys.stdout.write("".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text) + "\n")
    else:
        sys.stdout.buffer.write(data)


def replay_letters(
    context: typer.Context,
    letter_ids: Annotated[
        list[str] | None, typer.Argument(help="As `flywheel dead-letters list` shows them.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every one that there is.")] = False,
) -> None:
    r"""Try dead letters once more: those that can be read by now are sent again, and are dead letters no longer.

    They travel as every event does, through Kafka where it is set. What still cannot be read stays, and is named.

    flywheel dead-letters replay 3f2a90c1d4e5 77ab01
    flywheel dead-letters replay --all
    """
    from deploy.letters import replay as send_again

    if bool(letter_ids) == everything:
        raise FlywheelError("say which dead letters, by their ids, or --all")
    console = Console(soft_wrap=True, highlight=False)
    stayed = []

    def tell(letter: "Letter", reason: str) -> None:
        stayed.append(bool(reason))
        told = f"stays: {reason}" if reason else "sent again"
        console.print(f"{letter.id[:_SHOWN]}  {told}", markup=False)

    asyncio.run(send_again(settings_of(context), letter_ids, tell))
    console.print(f"{stayed.count(False)} sent again, {stayed.count(True)} stay")


def replay(
    context: typer.Context,
    begin: Annotated[
        str, typer.Option("--from", metavar="TIME", help="2026-11-23, 2026-11-23T10:00 (UTC), or beginning.")
    ],
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Another store: sqlite:///… or postgresql://…; made if need be."),
    ] = None,
) -> None:
    r"""Write into the store again what Kafka's topics hold: after a loss, a restored backup, or to make a copy.

    What a store has stays as it is, so this may be interrupted and repeated, and may run beside the collectors. Topics
    hold what \[kafka] retention_days says; policies and erasures are kept for ever.

    flywheel replay --from beginning
    flywheel replay --from 2026-11-20 --to sqlite:////tmp/copy.db
    """
    from deploy.replaying import replayed

    settings = settings_of(context)
    options = _kafka(settings)
    since = None if begin == "beginning" else _time(begin)
    if to is not None:
        feedback = settings.feedback.model_copy(update={"store_url": to})
        settings = settings.model_copy(update={"feedback": feedback})
    counts = replayed(settings, options, since, Console(stderr=True))
    Console(soft_wrap=True, highlight=False).print(
        "the store holds " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    )


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise FlywheelError(f"--from {text}: write a time like 2026-11-23T10:00, or beginning") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _kafka(settings: "Settings") -> KafkaOptions:
    if settings.kafka is None:
        raise FlywheelError("no Kafka is set: events go straight to the store; see [kafka] in flywheel.toml")
    return settings.kafka
