"""An Apache Kafka of this machine's own: one node that is broker and controller (KRaft), on loopback only.

It runs from the folder that KAFKA_HOME names, else as the image `apache/kafka` in Docker. Whoever has a broker already
names it in KAFKA_BOOTSTRAP_SERVERS, and nothing is started.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import aiohttp

from deploy.errors import FlywheelError
from deploy.process import Program, Ready

PORT = 9092
IMAGE = "apache/kafka:4.3.1"
HOW_TO_GET_ONE = (
    "no Kafka broker: name a running one in KAFKA_BOOTSTRAP_SERVERS (host:port,…), or unpack Apache Kafka 4 "
    "(https://kafka.apache.org/downloads), name its folder in KAFKA_HOME and install Java 17, or install Docker"
)
_HEAP = "KAFKA_HEAP_MAX"  # environment variable: most memory of Java's, e.g. 384m
_READY_SECONDS = 120.0
_ANSWER_SECONDS = 2.0
# Protocol guide, "Metadata" version 1, about no topic: key, version, correlation id, no client id, no topics.
_METADATA = struct.pack(">hhihi", 3, 1, 1, -1, 0)


def named() -> tuple[str, ...]:
    """The brokers of KAFKA_BOOTSTRAP_SERVERS; none where it is not set."""
    return tuple(filter(None, map(str.strip, os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").split(","))))


def program(
    data: Path,
    port: int,
    *,
    logs: Path,
    durable: bool = True,
    advertised: int | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Program:
    """A broker at `127.0.0.1:port`, with a controller at the port after it. Raises `FlywheelError` without one to run.

    What it holds is in `data` (with Docker: in a volume named after it), and there again at the next start; not
    `durable` asks for less. `advertised` is the port that clients are sent to, where they must go through another's;
    `settings` are the broker's own, beside or instead of `properties`.
    Blocks, the first time for some seconds: the storage is formatted.
    """
    home = os.environ.get("KAFKA_HOME")
    told = {**properties(port, advertised), **settings}
    if home:
        command = _from_folder(Path(home), data, told)
    elif (docker := shutil.which("docker")) is not None:
        command = _in_docker(docker, data, told, durable=durable)
    else:
        raise FlywheelError(HOW_TO_GET_ONE)
    return Program(
        name="Kafka",
        command=command,
        environment={},
        ready=_at(port),
        log=logs / "kafka.log",
        folder=data,
        ready_seconds=_READY_SECONDS,
        mend="Its port and the one after it must be free. To use another broker, set KAFKA_BOOTSTRAP_SERVERS.",
    )


def _from_folder(home: Path, data: Path, told: Mapping[str, str]) -> Sequence[str]:
    if not any(home.glob("libs/kafka_*.jar")):
        raise FlywheelError(
            f"KAFKA_HOME={home} holds no Kafka: libs/kafka_*.jar is missing; {HOW_TO_GET_ONE}"
        )
    java_home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{java_home}/bin" if java_home else None)
    if java is None:
        raise FlywheelError(
            "Kafka needs Java 17: install it (Debian: openjdk-17-jre-headless), or set JAVA_HOME"
        )
    run = (
        *(java, "-Xms128m", f"-Xmx{os.environ.get(_HEAP, '512m')}", "-XX:+UseSerialGC"),
        *("-Dorg.apache.logging.log4j.level=WARN", "-cp", str(home.absolute() / "libs" / "*")),
    )
    storage = data.absolute() / "storage"
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)  # what people ask and answer is in it
    storage.mkdir(exist_ok=True)
    file = data.absolute() / "server.properties"
    lines = {**told, "log.dirs": str(storage)}
    file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    if not (storage / "meta.properties").is_file():
        _format(run, file)
    return (*run, "kafka.Kafka", str(file))


def _format(run: Sequence[str], file: Path) -> None:
    tool = (*run, "kafka.tools.StorageTool")
    made = subprocess.run((*tool, "random-uuid"), capture_output=True, text=True, check=False)
    if made.returncode == 0:
        command = (*tool, "format", "--cluster-id", made.stdout.strip(), "--config", str(file))
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise FlywheelError(
            f"Kafka's storage could not be formatted:\n{(made.stdout + made.stderr)[-2_000:]}"
        )


def _in_docker(docker: str, data: Path, told: Mapping[str, str], *, durable: bool) -> Sequence[str]:
    data.mkdir(parents=True, exist_ok=True)
    name = f"flywheel-kafka-{hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:12]}"
    subprocess.run(
        (docker, "rm", "--force", name), capture_output=True, check=False
    )  # one whose guard was killed
    volume = ("--volume", f"{name}:/var/lib/kafka/data") if durable else ()
    variables = [
        word
        for setting, value in {**told, "log.dirs": "/var/lib/kafka/data"}.items()
        for word in ("--env", f"{_variable(setting)}={value}")
    ]
    return (docker, "run", "--rm", "--name", name, "--network", "host", *volume, *variables, IMAGE)


def _variable(setting: str) -> str:
    """As the image wants it: https://hub.docker.com/r/apache/kafka, "Using environment variables"."""
    return "KAFKA_" + setting.upper().replace("_", "__").replace("-", "___").replace(".", "_")


def properties(port: int, advertised: int | None = None) -> dict[str, str]:
    """What makes a single node of it: nothing is replicated, and a client need not wait for others to join."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{port + 1}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised or port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "5",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        # After a kill, a broker is kept out for as long as its last session lasts, 9 s by default. On a machine that
        # is busy with other things it is also kept out when it is late for so long (seen with 2 s).
        "broker.session.timeout.ms": "6000",
        "broker.heartbeat.interval.ms": "1000",
    }


def _at(port: int) -> Ready:
    """Ready when it knows a broker, itself: a port that is open is not enough, it may be kept out yet."""

    async def ready(_: aiohttp.ClientSession) -> bool:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await _brokers(port) > 0
        return False

    return ready


async def _brokers(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(struct.pack(">i", len(_METADATA)) + _METADATA)
        _length, _correlation, brokers = struct.unpack(">iii", await reader.readexactly(12))
    finally:
        writer.close()
    assert isinstance(brokers, int)
    return brokers
