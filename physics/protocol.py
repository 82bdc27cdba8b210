"""The program of a battery cycler, as text: `CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50`.

protocol  := step { ";" step }
step      := "CC" rate ["charge" | "discharge"] ends      constant current
           | "CP" power ["charge" | "discharge"] ends     constant power
           | "CV" voltage ["to" rate] ["for" time]        constant voltage, until the current has fallen to `rate`
           | "CCCV" rate voltage rate ["for" time]        charge: constant current, then constant voltage
           | "rest" time
ends      := ["to" voltage] ["for" time]                  at least one; whichever comes first
rate      := 1C | C/3 | 2.5A | 500mA                      "-" in front charges
time      := 90s | 30min | 1h | 1h30min | 2d

Where no direction is given, a step goes towards its target voltage. If it has only a time, it discharges.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from physics.parameters import CellParameters

LARGEST_C_RATE: Final = 50.0
EXAMPLE: Final = "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50"

_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_SPACED_UNIT: Final = re.compile(r"(?<=[\d.])\s+(?=(?:c|ma|a|mv|v|kw|w|s|sec|min|h|d)\b)", re.IGNORECASE)
_SECONDS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(Enum):
    """What a step holds constant."""

    CC = "CC"
    CCCV = "CCCV"
    CV = "CV"
    CP = "CP"
    REST = "rest"


@dataclass(frozen=True)
class Rate:
    """A current: in amperes, or as a C-rate of the nominal capacity. Always positive."""

    value: float
    unit: str
    """C or A."""

    def ampere(self, capacity_Ah: float) -> float:
        """The current [A]."""
        return self.value * capacity_Ah if self.unit == "C" else self.value


@dataclass(frozen=True)
class Step:
    """One step; what does not apply is None."""

    text: str
    """As it was written."""
    kind: Kind
    rate: Rate | None = None
    power_W: float | None = None
    charges: bool | None = None
    """None: towards `voltage_V`."""
    voltage_V: float | None = None
    """Target of a CC or CP step, or the voltage that CV and CCCV hold."""
    cutoff: Rate | None = None
    """Current that ends CV and CCCV."""
    duration_s: float | None = None


def parse_protocol(text: str) -> tuple[Step, ...]:
    """The steps of a protocol. A one-line ValueError says which step is wrong and what was expected."""
    parts = [" ".join(part.split()) for part in re.split(r"[;\n]", text)]
    parts = [part for part in parts if part]
    if not parts:
        raise ValueError(f'expected a protocol such as "{EXAMPLE}", got {text!r}')
    return tuple(_Reader(number, part).step() for number, part in enumerate(parts, 1))


def checked_protocol(steps: tuple[Step, ...], cell: CellParameters) -> tuple[Step, ...]:
    """The same steps, or a ValueError if one asks for more than this cell can give."""
    for number, step in enumerate(steps, 1):
        where = f'step {number} "{step.text}"'
        low, high = cell.voltage_min_V, cell.voltage_max_V
        if step.voltage_V is not None and not low <= step.voltage_V <= high:
            raise ValueError(
                f"{where}: expected a voltage from {low:g} to {high:g} V, the limits of {cell.name},"
                f" got {step.voltage_V:g} V"
            )
        largest = LARGEST_C_RATE * cell.nominal_capacity_Ah
        if step.rate is not None and step.rate.ampere(cell.nominal_capacity_Ah) > largest:
            raise ValueError(f"{where}: expected at most {LARGEST_C_RATE:g}C ({largest:g} A of {cell.name})")
        if step.power_W is not None and step.power_W > largest * high:
            raise ValueError(f"{where}: expected at most {largest * high:g} W ({LARGEST_C_RATE:g}C of {cell.name})")
        if step.kind is Kind.CCCV:
            assert step.rate is not None
            assert step.cutoff is not None
            start, end = (rate.ampere(cell.nominal_capacity_Ah) for rate in (step.rate, step.cutoff))
            if end >= start:
                raise ValueError(f"{where}: expected a final current below the first, got {end:g} A and {start:g} A")
    return steps


class _Reader:
    """Reads the words of one step from left to right."""

    def __init__(self, number: int, text: str) -> None:
        self.text = text
        self.where = f'step {number} "{text}"'
        self.words = _SPACED_UNIT.sub("", text).split()

    def step(self) -> Step:
        word = self.next("CC, CCCV, CV, CP or rest")
        kind = next((kind for kind in Kind if kind.value.lower() == word.lower()), None)
        if kind is None:
            raise self.wrong("CC, CCCV, CV, CP or rest", word)
        step = {
            Kind.CC: self.constant_current,
            Kind.CP: self.constant_power,
            Kind.CV: self.constant_voltage,
            Kind.CCCV: self.charge,
            Kind.REST: self.rest,
        }[kind]()
        if self.words:
            raise self.wrong("the end of the step (steps are separated by ';')", self.words[0])
        return step

    def constant_current(self) -> Step:
        rate, minus = self.rate("a current such as 1C, C/3 or 2.5A")
        charges = self.direction(minus)
        voltage, duration = self.ends()
        return Step(self.text, Kind.CC, rate=rate, charges=charges, voltage_V=voltage, duration_s=duration)

    def constant_power(self) -> Step:
        word = self.next("a power such as 10W")
        power = self.number(word, {"w": 1.0, "kw": 1000.0}, "a power such as 10W")
        charges = self.direction(power < 0.0)
        voltage, duration = self.ends()
        return Step(self.text, Kind.CP, power_W=abs(power), charges=charges, voltage_V=voltage, duration_s=duration)

    def constant_voltage(self) -> Step:
        voltage = self.voltage()
        cutoff = self.cutoff() if self.take("to") else None
        duration = self.time() if self.take("for") else None
        if cutoff is None and duration is None:
            raise self.wrong("'to' and a current, or 'for' and a time (CV 4.2V to C/50)", self.ahead())
        return Step(self.text, Kind.CV, voltage_V=voltage, cutoff=cutoff, duration_s=duration)

    def charge(self) -> Step:
        rate, _ = self.rate("a current such as 0.5C (CCCV 0.5C 4.2V C/50)")
        voltage = self.voltage()
        self.take("to")
        cutoff = self.cutoff()
        duration = self.time() if self.take("for") else None
        return Step(
            self.text, Kind.CCCV, rate=rate, charges=True, voltage_V=voltage, cutoff=cutoff, duration_s=duration
        )

    def rest(self) -> Step:
        self.take("for")
        return Step(self.text, Kind.REST, duration_s=self.time())

    def ends(self) -> tuple[float | None, float | None]:
        voltage = self.voltage() if self.take("to") else None
        duration = self.time() if self.take("for") else None
        if voltage is None and duration is None:
            raise self.wrong("'to' and a voltage, or 'for' and a time (CC 1C to 2.5V, CC 1C for 30min)", self.ahead())
        return voltage, duration

    def direction(self, minus: bool) -> bool | None:
        """True charges, False discharges, None: towards the target."""
        if self.take("charge"):
            return True
        if self.take("discharge"):
            if minus:
                raise ValueError(f"{self.where}: expected one direction, got '-' (charges) and 'discharge'; drop one")
            return False
        if minus:
            return True
        return None if self.ahead().lower() == "to" else False

    def rate(self, expected: str) -> tuple[Rate, bool]:
        """A current and whether a minus stood before it."""
        word = self.next(expected)
        sign = -1.0 if word.startswith("-") else 1.0
        if match := re.fullmatch(rf"[+-]?c/({_NUMBER})", word.lower()):
            divisor = float(match[1])
            value, unit = (sign / divisor if divisor > 0.0 else math.nan), "C"
        elif word.lower().endswith("c"):
            value, unit = self.number(word, {"c": 1.0}, expected), "C"
        else:
            value, unit = self.number(word, {"a": 1.0, "ma": 0.001}, expected), "A"
        if not (math.isfinite(value) and value != 0.0):
            raise self.wrong(expected, word)
        return Rate(abs(value), unit), value < 0.0

    def cutoff(self) -> Rate:
        return self.rate("the current that ends it, such as C/50 or 100mA")[0]

    def voltage(self) -> float:
        word = self.next("a voltage such as 4.2V")
        return self.number(word, {"v": 1.0, "mv": 0.001}, "a voltage such as 4.2V")

    def time(self) -> float:
        word = self.next("a time such as 90s, 30min or 1h")
        parts = re.findall(r"(\d+\.?\d*|\.\d+)(min|sec|s|h|d)", word.lower())
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if "".join(a + b for a, b in parts) != word.lower() or not 0.1 <= seconds < math.inf:
            raise self.wrong("a time of at least 0.1s such as 90s, 30min or 1h", word)
        return seconds

    def number(self, word: str, units: dict[str, float], expected: str) -> float:
        match = re.fullmatch(rf"({_NUMBER})([a-z]+)", word.lower())
        if match is None or match[2] not in units:
            raise self.wrong(expected, word)
        value = float(match[1]) * units[match[2]]
        if not math.isfinite(value) or value == 0.0:
            raise self.wrong(f"{expected}, not zero", word)
        return value

    def ahead(self) -> str:
        return self.words[0] if self.words else ""

    def next(self, expected: str) -> str:
        if not self.words:
            raise self.wrong(expected, "")
        return self.words.pop(0)

    def take(self, word: str) -> bool:
        if self.ahead().lower() == word:
            self.words.pop(0)
            return True
        return False

    def wrong(self, expected: str, got: str) -> ValueError:
        return ValueError(f"{self.where}: expected {expected}, got {repr(got) if got else 'nothing'}")
