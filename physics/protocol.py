"""The program of a battery cycler, as text: `CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50`.

protocol  := step { ";" step }
step      := "CC" rate ["charge" | "discharge"] ends      constant current
           | "CP" power ["charge" | "discharge"] ends     constant power
           | "CV" voltage ends                            constant voltage
           | "CCCV" rate voltage rate [ends]              charge: constant current, then constant voltage
           | "drive" file [ends]                          a recorded demand (physics/drive_file.py)
           | "rest" time
           | "Charge" | "Discharge" "at" rate|power ends  the sentences of PyBaMM's experiments
           | "Hold at" voltage ends
ends      := { ["or"] end }                               at least one; whichever comes first
end       := "to" | "until" voltage                       2.5V
           | "to" | "until" charge                        2Ah: through the terminals in this step, net
           | "to" | "until" ["<" | ">"] rate              of CV and CP: the current falls to it, or rises (">")
           | "for" time
           | "at" temperature                             of the chamber, in this step: 0degC, 25oC, 298K
           | "(" time "period)"                           the longest time step
rate      := 1C | C/3 | 2.5A | 500mA                      "-" in front charges
time      := 90s | 30min | 1h | 1h30min | 2d | 0.5 hours

Where no direction is given, a step goes towards its target voltage. If it has none, it discharges.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from physics.constants import COLDEST_C, HOTTEST_C, LARGEST_C_RATE
from physics.drive_file import Drive, read_drive
from physics.parameters import CellParameters

EXAMPLE: Final = "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50"

_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_TIMES: Final = "|".join(sorted(_SECONDS, key=len, reverse=True))
_KELVIN: Final = {"degc": 273.15, "oc": 273.15, "°c": 273.15, "k": 0.0}
_SPACED_UNIT: Final = re.compile(
    rf"(?<=[\d.])\s+(?=(?:{_TIMES}|c|ma|a|mv|v|kw|mw|w|mah|ah|ohm|degc|oc|°c|k)(?![a-z]))", re.IGNORECASE
)
_FILE: Final = re.compile(r"""drive\s+(?:"([^"]+)"|'([^']+)'|(\S+))(.*)""", re.IGNORECASE)
_KINDS: Final = "CC, CCCV, CV, CP, drive or rest"
_CURRENT: Final = "a current such as 1C, C/3 or 2.5A"
_POWER: Final = "a power such as 10W"


class Kind(Enum):
    """What a step holds constant."""

    CC = "CC"
    CCCV = "CCCV"
    CV = "CV"
    CP = "CP"
    DRIVE = "drive"
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
    """Target of a CC, CP or drive step, or the voltage that CV and CCCV hold."""
    cutoff: Rate | None = None
    """The step ends when the current has fallen to it."""
    above: Rate | None = None
    """The step ends when the current has risen to it."""
    charge_Ah: float | None = None
    """The step ends when this charge has passed, net of the opposite direction."""
    duration_s: float | None = None
    chamber_C: float | None = None
    """Temperature of the air in this step. None: that of the whole protocol."""
    period_s: float | None = None
    """Longest time step."""
    drive: Drive | None = None


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
        current_A = step.rate.ampere(cell.nominal_capacity_Ah) if step.rate else 0.0
        power_W = step.power_W or 0.0
        if step.drive is not None:
            current_A, power_W = step.drive.largest(cell.nominal_capacity_Ah)
        if current_A > largest:
            raise ValueError(f"{where}: expected at most {LARGEST_C_RATE:g}C ({largest:g} A of {cell.name})")
        if power_W > largest * high:
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
        self.file: str | None = None
        if match := _FILE.fullmatch(text):
            self.file, text = match[1] or match[2] or match[3], f"drive {match[4]}"
        self.words = _SPACED_UNIT.sub("", re.sub(r"([<>])\s+", r"\1", text)).split()

    def step(self) -> Step:
        word = self.next(_KINDS)
        readers = {
            "cc": self.constant_current,
            "cp": self.constant_power,
            "cv": self.constant_voltage,
            "cccv": self.charge,
            "drive": self.recorded,
            "rest": self.rest,
            "charge": self.charge_sentence,
            "discharge": self.discharge_sentence,
            "hold": self.hold_sentence,
        }
        if word.lower() == "run":
            raise ValueError(f"{self.where}: expected 'drive' and a CSV file for a drive cycle, got {word!r}")
        if word.lower() not in readers:
            raise self.wrong(_KINDS, word)
        step = readers[word.lower()]()
        if self.words:
            raise self.wrong("the end of the step (steps are separated by ';')", self.words[0])
        return step

    def constant_current(self) -> Step:
        rate, minus = self.rate(_CURRENT)
        return self.towards(Step(self.text, Kind.CC, rate=rate, charges=self.direction(minus)))

    def constant_power(self) -> Step:
        power = self.power(self.next(_POWER))
        charges = self.direction(power < 0.0)
        return self.towards(Step(self.text, Kind.CP, power_W=abs(power), charges=charges))

    def constant_voltage(self) -> Step:
        step = Step(self.text, Kind.CV, voltage_V=self.voltage())
        hint = "'to' and a current, or 'for' and a time (CV 4.2V to C/50)"
        return self.ends(step, required=hint)

    def charge(self) -> Step:
        rate, _ = self.rate("a current such as 0.5C (CCCV 0.5C 4.2V C/50)")
        voltage = self.voltage()
        self.take("to")
        cutoff = self.rate("the current that ends it, such as C/50 or 100mA")[0]
        return self.ends(Step(self.text, Kind.CCCV, rate=rate, charges=True, voltage_V=voltage, cutoff=cutoff))

    def recorded(self) -> Step:
        if self.file is None:
            raise self.wrong("a CSV file (drive us06.csv)", "")
        try:
            drive = read_drive(self.file)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None
        return self.ends(Step(self.text, Kind.DRIVE, drive=drive))

    def rest(self) -> Step:
        if self.ahead().lower() not in ("for", "at", "("):
            self.words.insert(0, "for")
        step = self.ends(Step(self.text, Kind.REST), required="a time such as 90s, 30min or 1h")
        if step.duration_s is None:
            raise self.wrong("a time such as 90s, 30min or 1h", "")
        return step

    # --- PyBaMM's sentences ------------------------------------------------------------------------------------

    def charge_sentence(self) -> Step:
        return self.sentence(charges=True)

    def discharge_sentence(self) -> Step:
        return self.sentence(charges=False)

    def sentence(self, charges: bool) -> Step:
        if not self.take("at"):
            raise self.wrong("'at' and a current or power (Discharge at C/10 for 10 hours)", self.ahead())
        word = self.ahead()
        if word.startswith("-"):
            raise self.wrong("a current or power without a sign", word)
        if word.lower().endswith("ohm"):
            raise self.wrong("a current or power; a constant resistance cannot be held", word)
        if word.lower().endswith("v"):
            raise self.wrong("a current or power; a voltage is held by 'Hold at 4.2 V'", word)
        if word.lower().endswith("w"):
            step = Step(self.text, Kind.CP, power_W=self.power(self.next(_POWER)), charges=charges)
        else:
            step = Step(self.text, Kind.CC, rate=self.rate("a current or power such as C/10, 1 A or 1 W")[0])
        return self.towards(replace(step, charges=charges))

    def hold_sentence(self) -> Step:
        if not self.take("at"):
            raise self.wrong("'at' and a voltage (Hold at 4.2 V until 50 mA)", self.ahead())
        if any(word.startswith(("<", ">")) for word in self.words):
            # PyBaMM compares the current with its sign, which is negative in a charge.
            raise self.wrong("a current without < or > (Hold at 4.2 V until 50 mA)", self.text)
        return self.constant_voltage()

    # --- how a step ends -----------------------------------------------------------------------------------------

    def towards(self, step: Step) -> Step:
        """The ends of a CC or CP step, and its direction where it has none yet."""
        hint = "'to' and a voltage, or 'for' and a time (CC 1C to 2.5V, CC 1C for 30min)"
        step = self.ends(step, required=hint)
        if step.charges is None and step.voltage_V is None:
            step = replace(step, charges=False)
        return step

    def ends(self, step: Step, required: str | None = None) -> Step:
        """`step` with all that follows; `required`: what was expected where no end follows."""
        ended = False
        while self.words:
            another = self.take("or")
            word = self.ahead()
            if word.lower() in ("to", "until"):
                self.words.pop(0)
                step, ended = self.target(step), True
            elif self.take("for"):
                step, ended = self.once(step, "duration_s", self.time()), True
            elif self.take("at"):
                step = self.once(step, "chamber_C", self.temperature())
            elif word.startswith("(") and [w.lower() for w in self.words[1:2]] == ["period)"]:
                self.words[0] = word[1:]
                step = self.once(step, "period_s", self.time())
                self.words.pop(0)
            elif another:
                step = self.target(step)
            else:
                break
        if required is not None and not ended:
            raise self.wrong(required, self.ahead())
        return step

    def target(self, step: Step) -> Step:
        """What follows 'to' or 'until'."""
        word = self.ahead()
        sign, value = (word[0], word[1:]) if word[:1] in ("<", ">") else ("", word)
        self.words[:1] = [value] if value else []
        unit = value.lower().lstrip("+-0123456789.")
        if unit in ("ah", "mah") and not sign and step.kind is not Kind.REST:
            charge = self.number(self.next(""), {"ah": 1.0, "mah": 0.001}, "a charge such as 2Ah")
            if charge < 0.0:
                raise self.wrong("a charge without a sign", value)
            return self.once(step, "charge_Ah", charge)
        if unit in ("v", "mv") and step.kind in (Kind.CC, Kind.CP, Kind.DRIVE):
            if sign and (step.kind is Kind.DRIVE or step.charges not in (None, sign == ">")):
                raise self.wrong("a voltage that the step runs towards, without < or >", word)
            step = self.once(step, "voltage_V", self.voltage())
            return replace(step, charges=sign == ">") if sign else step
        if (unit in ("a", "ma", "c") or value.lower().startswith("c/")) and step.kind in (Kind.CV, Kind.CCCV, Kind.CP):
            if sign and self.text.lower().startswith("charge"):
                # PyBaMM compares the current with its sign, which is negative in a charge.
                raise self.wrong("a current without < or > (Charge at 10 W until 1 A)", word)
            rate, minus = self.rate("a current such as C/50 or 100mA")
            if minus:
                raise self.wrong("a current without a sign", word)
            return self.once(step, "above" if sign == ">" else "cutoff", rate)
        possible = {
            Kind.CC: "a voltage or a charge (2.5V, 2Ah)",
            Kind.CP: "a voltage, a charge or a current (2.5V, 2Ah, >5A)",
            Kind.CV: "a current or a charge (C/50, 2Ah)",
            Kind.CCCV: "a charge (2Ah)",
            Kind.DRIVE: "a voltage or a charge (2.5V, 2Ah)",
            Kind.REST: "'for' and a time",
        }
        raise self.wrong(possible[step.kind], word)

    def once(self, step: Step, field: str, value: object) -> Step:
        if getattr(step, field) is not None:
            raise ValueError(f"{self.where}: expected each end once, got two of the same kind; drop one")
        return replace(step, **{field: value})  # type: ignore[arg-type]

    def direction(self, minus: bool) -> bool | None:
        """True charges, False discharges, None: towards the target."""
        if self.take("charge"):
            return True
        if self.take("discharge"):
            if minus:
                raise ValueError(f"{self.where}: expected one direction, got '-' (charges) and 'discharge'; drop one")
            return False
        return True if minus else None

    # --- quantities ----------------------------------------------------------------------------------------------

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

    def power(self, word: str) -> float:
        return self.number(word, {"w": 1.0, "kw": 1000.0, "mw": 0.001}, _POWER)

    def voltage(self) -> float:
        word = self.next("a voltage such as 4.2V")
        return self.number(word, {"v": 1.0, "mv": 0.001}, "a voltage such as 4.2V")

    def temperature(self) -> float:
        word = self.next("a temperature such as 25degC")
        match = re.fullmatch(rf"({_NUMBER})([a-z°]+)", word.lower())
        if match is None or match[2] not in _KELVIN:
            raise self.wrong("a temperature such as 25degC, 25oC or 298K", word)
        value = float(match[1]) + _KELVIN[match[2]] - 273.15
        if not COLDEST_C <= value <= HOTTEST_C:
            raise self.wrong(f"a temperature from {COLDEST_C:g} to {HOTTEST_C:g} degC", word)
        return value

    def time(self) -> float:
        word = self.next("a time such as 90s, 30min or 1h")
        parts = re.findall(rf"(\d+\.?\d*|\.\d+)({_TIMES})", word.lower())
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
        if got.endswith(","):
            expected += " and steps separated by ';'"
        return ValueError(f"{self.where}: expected {expected}, got {repr(got) if got else 'nothing'}")
