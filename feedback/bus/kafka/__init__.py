"""Events over Apache Kafka: `producer` is the bus, `collecting` the process behind it, `options` what both are told.

Only `options`, and what stands here, may be imported where kafka-python (the extra `kafka`) is not installed.
"""

from feedback.bus.base import Bus, BusError
from feedback.bus.kafka.options import KafkaOptions


def kafka_bus(options: KafkaOptions, store_url: str) -> Bus:
    """The bus to these topics; connects later. Raises `BusError` where kafka-python is not installed."""
    try:
        from feedback.bus.kafka.producer import KafkaBus  # noqa: PLC0415  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise BusError(f"{error}: install flywheel[kafka]") from error
    return KafkaBus(options, store_url)
