"""With TLS and a log-in, as brokers of production have it: on a broker of this file's own."""

import asyncio
import gc
import os
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from deploy import broker, process
from deploy.errors import FlywheelError
from feedback.bus.base import BusError
from feedback.bus.kafka import clients, topics
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import KafkaBus, Sender
from feedback.bus.kafka.records import event_record
from feedback.delivery import delivering
from tests.contracts.delivery import until
from tests.contracts.samples import change, rating, request
from tests.feedback.bus.kafka.conftest import collected, collecting
from tests.servers import free_port_and_next, kafka_program

_MODULES = "org.apache.kafka.common.security"


def certificate(name, key, issuer, issuers_key):
    """For a host of this name, or for an authority that is its own issuer."""
    now, mine = (
        datetime.now(UTC),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
    )
    builder = x509.CertificateBuilder(
        mine if issuer is None else issuer.subject,
        mine,
        key.public_key(),
        x509.random_serial_number(),
        now - timedelta(days=1),
        now + timedelta(days=1),
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    return builder.sign(issuers_key, hashes.SHA256())


@pytest.fixture(scope="module")
def moved():
    """The port of a listener that sends clients on to 127.0.0.1, which its certificate does not name."""
    return free_port_and_next()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(moved):
    """What connects to a broker by SCRAM: its user is `ann`. Beside `ca.pem` lies `other.pem`, which signed nothing."""
    authority, other, host = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    signer = certificate("authority", authority, None, authority)
    shown = certificate("localhost", host, signer, authority)
    key = host.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    port, tls = free_port_and_next(), free_port_and_next()
    plain = broker.properties(port)
    settings = {
        "listeners": f"{plain['listeners']},CLIENTS://127.0.0.1:{tls},MOVED://127.0.0.1:{moved}",
        "advertised.listeners": f"{plain['advertised.listeners']},CLIENTS://localhost:{tls},MOVED://127.0.0.1:{moved}",
        "listener.security.protocol.map": f"{plain['listener.security.protocol.map']},CLIENTS:SASL_SSL,MOVED:SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": key.replace("\n", " "),
        "ssl.keystore.certificate.chain": shown.public_bytes(Encoding.PEM).decode().replace("\n", " "),
        "listener.name.clients.plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required "
        'user_ann="sesame";',
        "listener.name.clients.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
    }
    with tempfile.TemporaryDirectory(prefix="flywheel-tests-") as name:
        folder = Path(name)
        (folder / "ca.pem").write_bytes(signer.public_bytes(Encoding.PEM))
        (folder / "other.pem").write_bytes(
            certificate("other", other, None, other).public_bytes(Encoding.PEM)
        )
        try:
            program = kafka_program(folder / "kafka", port, settings)
        except FlywheelError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        async with aiohttp.ClientSession() as session, process.running(program) as running:
            await running.ready(session)
            with KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}") as admin:
                user = UserScramCredentialUpsertion("ann", ScramMechanism.SCRAM_SHA_512, "sesame")
                admin.alter_user_scram_credentials([user])
            yield KafkaOptions(
                bootstrap_servers=(f"localhost:{tls}",),
                partitions=3,
                security_protocol="SASL_SSL",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username="ann",
                sasl_password_variable="KAFKA_PASSWORD",
                ca_file=str(folder / "ca.pem"),
            )


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_who_logs_in_makes_topics_sends_and_collects(secured, mechanism, store, tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "sesame")
    own = f"t{uuid.uuid4().hex}"
    options = secured.model_copy(update={"sasl_mechanism": mechanism, "prefix": own, "group": own})
    assert len(await asyncio.to_thread(topics.create, options)) == 6
    bus = KafkaBus(options, f"sqlite:///{tmp_path}/store.db")
    asked, changed = request(), change("sql-analyst@1", "candidate")
    async with delivering(tmp_path / "outbox.db", None, bus) as delivery:
        for event in (asked, rating(), changed):
            await delivery.append(event)
        await until(lambda: delivery.depth().events == 0)
        await bus.settle()
        assert store.policy_changes("sql-analyst") == [changed]
        with collecting(options, store):
            await collected(options)
    await bus.close()
    assert store.request("r1", "default") == asked
    assert store.counts()["ratings"] == 1


@pytest.mark.filterwarnings(
    "ignore:unclosed <ssl:ResourceWarning"
)  # kafka-python's, of a handshake that failed
@pytest.mark.parametrize(
    ("changes", "password", "mend"),
    [
        ({}, "wrong", "does not let us in.*SCRAM-SHA-512.*ann.*password in KAFKA_PASSWORD"),
        ({"sasl_mechanism": "PLAIN"}, "wrong", "does not let us in.*PLAIN.*ann.*password in KAFKA_PASSWORD"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "sesame", "look at sasl_mechanism SCRAM-SHA-256"),
        ({"sasl_username": "bob"}, "sesame", "look at.*sasl_username bob"),
        ({"ca_file": "other.pem"}, "sesame", "CERTIFICATE_VERIFY_FAILED.*ca_file must hold"),
        ({"ca_file": None}, "sesame", "CERTIFICATE_VERIFY_FAILED.*ca_file must hold"),
        ({"bootstrap_servers": "127.0.0.1"}, "sesame", "not valid for '127.0.0.1'.*bootstrap_servers a name"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "ca_file": None},
            "sesame",
            "is its listener SASL_PLAINTEXT",
        ),
    ],
    ids=str,
)
def test_who_is_not_let_in_is_told_what_to_look_at(secured, changes, password, mend, monkeypatch):
    monkeypatch.setattr(clients, "_BOOTSTRAP_MS", 1_000)
    monkeypatch.setenv("KAFKA_PASSWORD", password)
    if changes.get("ca_file"):
        changes = {"ca_file": str(Path(secured.ca_file).with_name(changes["ca_file"]))}
    if "bootstrap_servers" in changes:
        changes = {"bootstrap_servers": (secured.bootstrap_servers[0].replace("localhost", "127.0.0.1"),)}
    options = KafkaOptions.model_validate(secured.model_dump() | changes)
    gc.disable()  # which would close what was left behind
    try:
        before = psutil.Process().num_fds()
        with pytest.raises(BusError, match=f"Kafka at .*{mend}"):
            topics.create(options)
        assert psutil.Process().num_fds() == before
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")
def test_a_certificate_without_the_advertised_name_is_named_by_who_sends(secured, moved, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "sesame")
    options = secured.model_copy(update={"prefix": f"t{uuid.uuid4().hex}"})
    topics.create(options)
    misled = KafkaOptions(
        bootstrap_servers=(f"localhost:{moved}",),
        prefix=options.prefix,
        security_protocol="SSL",
        ca_file=secured.ca_file,
    )
    sender = Sender(misled)
    try:
        for _ in range(2):
            with pytest.raises(
                BusError, match=r"not valid for '127\.0\.0\.1'.*advertised\.listeners"
            ) as raised:
                sender.send([event_record(rating().model_dump_json().encode(), misled)])
            assert "kafka init" not in str(raised.value)
    finally:
        sender.close()
