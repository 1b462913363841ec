import ssl

import pytest
from pydantic import ValidationError

from feedback.bus.base import BusError
from feedback.bus.kafka.options import KafkaOptions, connection

SASL = {
    "bootstrap_servers": ("broker:9093",),
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "flywheel",
    "sasl_password_variable": "THE_PASSWORD",
}


def test_a_password_comes_from_the_named_variable_and_is_never_in_the_options(monkeypatch):
    monkeypatch.setenv("THE_PASSWORD", "s3cret")
    options = KafkaOptions.model_validate(SASL)
    told = connection(options)
    assert told.pop("ssl_context").verify_mode == ssl.CERT_REQUIRED
    assert told == {
        "bootstrap_servers": ["broker:9093"],
        "client_id": "flywheel",
        "security_protocol": "SASL_SSL",
        "reconnect_backoff_max_ms": 2_000,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "flywheel",
        "sasl_plain_password": "s3cret",
    }
    assert "s3cret" not in repr(options) + options.model_dump_json()


def test_a_password_that_is_not_set_is_said_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.delenv("THE_PASSWORD", raising=False)
    with pytest.raises(BusError, match="THE_PASSWORD"):
        connection(KafkaOptions.model_validate(SASL))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bootstrap_servers": ()}, "bootstrap_servers"),
        ({"prefix": "two words"}, "prefix"),
        ({"sasl_username": None}, "SASL needs"),
        ({"security_protocol": "SSL"}, "no effect"),
        ({"certificate_file": "own.pem"}, "neither"),
        ({"replication": 1, "min_insync_replicas": 2}, "cannot be in sync"),
        ({"sasl_password": "s3cret"}, "Extra inputs"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        KafkaOptions.model_validate(SASL | changes)


def test_certificates_without_tls_are_refused():
    with pytest.raises(ValidationError, match="certificates have no effect"):
        KafkaOptions(bootstrap_servers=("b:1",), ca_file="ca.pem")


@pytest.mark.parametrize("fields", [("ca_file",), ("certificate_file", "key_file")], ids="".join)
def test_a_certificate_that_is_not_there_or_is_none_is_named(fields, monkeypatch, tmp_path):
    monkeypatch.setenv("THE_PASSWORD", "s3cret")
    file = tmp_path / "odd.pem"
    options = KafkaOptions.model_validate(SASL | dict.fromkeys(fields, str(file)))
    for _ in range(2):
        with pytest.raises(BusError, match=f"{fields[0]}.*odd.pem"):
            connection(options)
        file.write_text("no certificate")
