"""What is found in a text, by rules that come with Flywheel. Each finds its matches in time linear in the text.

What has a checksum is checked, and the rest is as narrow as its form: what looks like personal data in a query or a
table of numbers, and is none, would be lost to training.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

Span = tuple[int, int]
Find = Callable[[str], Iterator[Span]]
Builtin = Literal["email", "iban", "credit_card", "us_ssn", "ip_address", "phone", "secret"]

_LOCAL_PART = frozenset("._%+-")  # beside letters and digits: the marks that addresses really have
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{1,59}|[^\W\d_]{2,63})", re.IGNORECASE)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}", re.IGNORECASE)
# How long an IBAN is, by country: the registry of SWIFT, release 97.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FK FO FI GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_CARD = re.compile(r"(?<!\w)(?<!\d[.,])[2-6](?:[ -]?\d){12,18}")
_CARD_DIGITS = range(13, 20)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_ADDRESS = re.compile(
    rf"(?<![\w:.])(?:[0-9a-f:]{{2,29}}:{_IPV4}|[0-9a-f:]{{6,39}})|(?<![\w.]){_IPV4}", re.IGNORECASE
)
_GOES_ON = re.compile(r"\w|\.\d")
_INTERNATIONAL = re.compile(r"(?<![\w+/])(?:\+|00)[ (]?[1-9](?:[ ./()-]{0,3}\d){6,14}(?!\d)")
_AMERICAN = re.compile(r"(?<![\w-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}(?![\w-])")
_SECRET = re.compile(
    r"(?<![\w-])(?:fw-[\w-]{43}|sk-[\w-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,255}|AKIA[0-9A-Z]{16}"
    r"|xox[abprs]-[\w-]{10,250}|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,2000})(?![\w-])"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\sA-Za-z0-9+/=]{0,20000}-----END [A-Z ]{0,30}PRIVATE KEY-----"
)


def _emails(text: str) -> Iterator[Span]:
    free, found = 0, -1
    at = text.find("@")
    while at >= 0:
        start = at
        while start > free and (text[start - 1].isalnum() or text[start - 1] in _LOCAL_PART):
            start -= 1
        # Right behind an address stands another whose local part was read as the end of the first one's domain.
        domain = _DOMAIN.match(text, at + 1) if start < at or at == found else None
        free = domain.end() if domain else at + 1
        if domain:
            found = free
            yield start, free
        at = text.find("@", free)


def _checked(pattern: re.Pattern[str], end: Callable[[str], int]) -> Find:
    """Matches of which `end` says how much is meant; 0: nothing, and the search goes on behind the first character."""

    def find(text: str) -> Iterator[Span]:
        at = 0
        while match := pattern.search(text, at):
            length = end(match[0])
            if text[match.start() + length : match.start() + length + 1].isalnum():
                length = 0
            if length:
                yield match.start(), match.start() + length
            at = match.start() + (length or 1)

    return find


def _iban_end(candidate: str) -> int:
    """ISO 13616: moved to the end and read as a number, the first four characters make it 1 modulo 97."""
    end = _after(candidate, _IBAN_LENGTHS.get(candidate[:2].upper(), 0), str.isalnum)
    compact = "".join(filter(str.isalnum, candidate[:end])).upper()
    numbers = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return end if end and int(numbers) % 97 == 1 else 0


def _card_end(candidate: str) -> int:
    """The longest beginning that ends with a group of digits and is a number by Luhn's formula (ISO/IEC 7812-1)."""
    for count in reversed(_CARD_DIGITS):
        end = _after(candidate, count, str.isdigit)
        if end and _luhn([int(digit) for digit in candidate[:end] if digit.isdigit()]):
            return end
    return 0


def _after(candidate: str, count: int, counts: Callable[[str], bool]) -> int:
    """Where a beginning with so many characters that count ends; 0 if it is shorter, or goes on without a break."""
    where = [at for at, character in enumerate(candidate) if counts(character)]
    if not count or len(where) < count:
        return 0
    end = where[count - 1] + 1
    return 0 if end < len(candidate) and counts(candidate[end]) else end


def _luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _addresses(text: str) -> Iterator[Span]:
    for match in _ADDRESS.finditer(text):
        found = match[0] if match[0].endswith("::") else match[0].rstrip(":")
        end = match.start() + len(found)
        if _GOES_ON.match(text, end):
            continue
        try:
            ipaddress.ip_address(found)
        except ValueError:
            continue
        yield match.start(), end


def _phones(text: str) -> Iterator[Span]:
    for pattern in (_INTERNATIONAL, _AMERICAN):
        yield from (match.span() for match in pattern.finditer(text))


def matches(pattern: re.Pattern[str]) -> Find:
    """Every match of an expression that is not empty. Takes google-re2's expressions as well."""

    def find(text: str) -> Iterator[Span]:
        return (match.span() for match in pattern.finditer(text) if match.end() > match.start())

    return find


# In this order: what is part of something larger is looked for after it.
BUILTIN: Mapping[Builtin, Find] = {
    "secret": matches(_SECRET),
    "email": _emails,
    "iban": _checked(_IBAN, _iban_end),
    "credit_card": _checked(_CARD, _card_end),
    "us_ssn": matches(_SSN),
    "ip_address": _addresses,
    "phone": _phones,
}
