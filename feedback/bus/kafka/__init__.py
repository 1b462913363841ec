"""Events over Apache Kafka: `producer` is the bus, `collecting` the process behind it, `options` what both are told.

Only `options` may be imported where kafka-python (the extra `kafka`) is not installed.
"""
