"""What happens to the bus when its broker dies: on a broker of this file's own."""

import asyncio
import contextlib
import os
import signal
import uuid

import aiohttp
import psutil
import pytest

from deploy import broker, process
from feedback.bus.base import BusError
from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.producer import KafkaBus
from feedback.delivery_process import delivering_apart
from tests.contracts.bus import as_json
from tests.contracts.delivery import until
from tests.contracts.samples import change, rating
from tests.feedback.kafka.conftest import collected, collecting
from tests.servers import _free_port_and_next as free_port
