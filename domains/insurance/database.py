"""Builds one instance of the insurer's database: same schema for every seed, different rows.

A prediction is compared with the gold query on two instances, so nothing here may be the same for two
seeds by design: row counts, proportions and money all depend on the seed.
"""

import math
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

SCHEMA = Path(__file__).with_name("schema.sql")

_CITIES = {"Leeds": 30, "York": 22, "Bath": 17, "Hull": 13, "Derby": 10, "Truro": 8}
_FIRST = (
    "Ada Alan Amir Anna Beth Boris Carl Clara Dina Edgar Elsa Erik Femi Flora Frank Gita Grace Hana Hugo "
    "Ines Ivan Jana Joel Kara Kofi Lara Leon Lucy Mara Milo Nadia Nils Olga Omar Paula Petra Ravi Rosa "
    "Sara Sven Tara Theo Uma Vera Viktor Wanda Yara Zeno"
)
_LAST = (
    "Abbot Adler Baker Barnes Bell Brook Carver Clay Cole Cross Dale Drake Ellis Farrow Finch Flint Ford "
    "Gale Grant Hale Hart Hobbs Holt Hunt Irwin Keane Kemp Lamb Lane Marsh Mercer Moss Nash North Oakes "
    "Palmer Pike Quill Reed Rowe Shaw Stone Swift Thorne Vance Ward West York"
)
_TRADES = "Bakery Brewery Carpentry Clinic Farms Foods Haulage Joinery Motors Optics Printers Textiles"

_Row = tuple[object, ...]


def build(path: Path, seed: int) -> None:
    """Write a fresh database file at `path`; the same seed gives the same rows."""
    path.unlink(missing_ok=True)
    rng = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(SCHEMA.read_text())
        people = _names(rng, _FIRST, _LAST)
        _fill(connection, "branches", branches := _branches(rng))
        _fill(connection, "agents", agents := _agents(rng, people, len(branches)))
        _fill(connection, "customers", customers := _customers(rng, people))
        _fill(connection, "policies", policies := _policies(rng, len(customers), len(agents)))
        _fill(connection, "coverages", _coverages(rng, len(policies)))
        _fill(connection, "invoices", _invoices(rng, policies))
        _fill(connection, "vehicles", _vehicles(rng, policies))
        _fill(connection, "claims", claims := _claims(rng, policies))
        _fill(connection, "payments", _payments(rng, claims))
        _fill(connection, "reserves", _reserves(rng, claims))


def _fill(connection: sqlite3.Connection, table: str, rows: Sequence[_Row]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  # our own names


def _branches(rng: random.Random) -> list[_Row]:
    n = rng.randint(52, 76)
    cities = _share(rng, _CITIES, n)
    regions = _share(rng, {"north": 38, "south": 28, "east": 20, "west": 14}, n)
    return [(i + 1, cities[i], regions[i], _day(rng, 1995, 2018)) for i in range(n)]


def _agents(rng: random.Random, people: list[str], branches: int) -> list[_Row]:
    n = rng.randint(120, 180)
    grades = _share(rng, {"junior": 52, "senior": 33, "partner": 15}, n)
    return [
        (i + 1, rng.randint(1, branches), people.pop(), grades[i], _day(rng, 2018, 2023)) for i in range(n)
    ]


def _customers(rng: random.Random, people: list[str]) -> list[_Row]:
    n = rng.randint(680, 860)
    companies = _names(rng, _LAST, _TRADES)
    kinds = _share(rng, {"person": 82, "company": 18}, n)
    cities = _share(rng, _CITIES, n)
    return [
        (i + 1, people.pop(), "person", cities[i], int(rng.triangular(18, 88, 44)))
        if kinds[i] == "person"
        else (i + 1, companies.pop(), "company", cities[i], None)
        for i in range(n)
    ]


def _policies(rng: random.Random, customers: int, agents: int) -> list[_Row]:
    n = rng.randint(1050, 1300)
    products = _share(rng, {"auto": 46, "home": 30, "travel": 15, "boat": 9}, n)
    statuses = _share(rng, {"active": 63, "lapsed": 24, "cancelled": 13}, n)
    typical = {p: m * rng.uniform(0.85, 1.2) for p, m in _PREMIUM.items()}
    return [
        (
            i + 1,
            # Few customers hold many policies: squaring a uniform draw favours the low ids.
            1 + int(customers * rng.random() ** 1.6),
            rng.randint(1, agents) if rng.random() < 0.82 else None,
            products[i],
            statuses[i],
            _day(rng, 2019, 2023),
            _money(rng, typical[products[i]], 0.45),
        )
        for i in range(n)
    ]


_PREMIUM = {"auto": 640.0, "home": 410.0, "travel": 130.0, "boat": 980.0}


def _coverages(rng: random.Random, policies: int) -> list[_Row]:
    n = rng.randint(1700, 2100)
    kinds = _share(rng, {"liability": 44, "contents": 26, "glass": 18, "injury": 12}, n)
    typical = {kind: rng.uniform(20000, 60000) for kind in sorted(set(kinds))}
    return [
        (
            i + 1,
            rng.randint(1, policies),
            kinds[i],
            _money(rng, typical[kinds[i]], 0.5),
            _money(rng, 240, 0.4) if rng.random() < 0.85 else None,
        )
        for i in range(n)
    ]


def _invoices(rng: random.Random, policies: Sequence[_Row]) -> list[_Row]:
    n = rng.randint(2100, 2600)
    statuses = _share(rng, {"paid": 74, "unpaid": 17, "overdue": 9}, n)
    rows: list[_Row] = []
    for i in range(n):
        policy = rng.choice(policies)
        rows.append((i + 1, policy[0], _later(rng, policy[5], 360), statuses[i], _money(rng, 160, 0.6)))
    return rows


def _vehicles(rng: random.Random, policies: Sequence[_Row]) -> list[_Row]:
    owners = [policy[0] for policy in policies if policy[3] == "auto"]
    owners += rng.choices(owners, k=len(owners) // 9)  # second cars
    n = len(owners)
    makes = _share(rng, {"Ford": 41, "Toyota": 27, "Fiat": 19, "Volvo": 13}, n)
    fuels = _share(rng, {"petrol": 48, "diesel": 27, "hybrid": 16, "electric": 9}, n)
    return [
        (i + 1, owners[i], makes[i], fuels[i], _money(rng, 14000, 0.5) if rng.random() < 0.93 else None)
        for i in range(n)
    ]


def _claims(rng: random.Random, policies: Sequence[_Row]) -> list[_Row]:
    n = rng.randint(900, 1150)
    kinds = _share(rng, {"collision": 37, "water": 24, "theft": 18, "storm": 13, "fire": 8}, n)
    statuses = _share(rng, {"settled": 58, "open": 27, "rejected": 15}, n)
    rows: list[_Row] = []
    for i in range(n):
        policy = rng.choice(policies)
        rows.append(
            (i + 1, policy[0], _later(rng, policy[5], 500), kinds[i], statuses[i], _money(rng, 3400, 0.9))
        )
    return rows


def _payments(rng: random.Random, claims: Sequence[_Row]) -> list[_Row]:
    settled = [claim for claim in claims if claim[4] == "settled"]
    parts = settled + rng.sample(settled, k=len(settled) // 4)
    methods = _share(rng, {"transfer": 67, "cheque": 21, "card": 12}, len(parts))
    return [
        (i + 1, claim[0], _later(rng, claim[2], 150), methods[i], _money(rng, 2100, 0.8))
        for i, claim in enumerate(parts)
    ]


def _reserves(rng: random.Random, claims: Sequence[_Row]) -> list[_Row]:
    held = [claim for claim in claims if claim[4] == "open" or rng.random() < 0.3]
    kinds = _share(rng, {"repair": 58, "medical": 27, "legal": 15}, len(held))
    return [
        (i + 1, claim[0], kinds[i], _later(rng, claim[2], 60), _money(rng, 2800, 0.7))
        for i, claim in enumerate(held)
    ]


def _share(rng: random.Random, weights: Mapping[str, float], n: int) -> list[str]:
    """`n` shuffled values, roughly by weight, no two equally frequent: a count then tells its value apart."""
    drifted = {value: weight * rng.uniform(0.82, 1.22) for value, weight in weights.items()}
    total = sum(drifted.values())
    values: list[str] = []
    taken = 0
    ascending = sorted(drifted, key=lambda value: drifted[value])
    for value in ascending[:-1]:
        taken = max(taken + 1, int(n * drifted[value] / total))
        values += [value] * taken
    rest = n - len(values)
    if rest <= taken:
        raise ValueError(f"{n} rows are too few for {len(weights)} unequal shares")
    values += [ascending[-1]] * rest
    rng.shuffle(values)
    return values


def _names(rng: random.Random, left: str, right: str) -> list[str]:
    names = [f"{a} {b}" for a in left.split() for b in right.split()]
    rng.shuffle(names)
    return names


def _money(rng: random.Random, median: float, spread: float) -> float:
    """A log-normal amount in whole cents: many small ones and a long tail, as losses are."""
    return round(max(5.0, rng.lognormvariate(math.log(median), spread)), 2)


def _day(rng: random.Random, first: int, last: int) -> str:
    """A day of the years `first` to `last`, the later ones more likely, as the book grows."""
    start = date(first, 1, 1)
    span = (date(last + 1, 1, 1) - start).days
    return (start + timedelta(days=int(span * rng.random() ** 0.75))).isoformat()


def _later(rng: random.Random, day: object, within: int) -> str:
    return (date.fromisoformat(str(day)) + timedelta(days=rng.randint(1, within))).isoformat()
