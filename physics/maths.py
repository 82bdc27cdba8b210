"""exp, log and asinh as polynomials that vectorise: the libm calls would make every loop over lanes scalar.

Relative error of `exp` below 1e-11 for |x| <= 60 (clamped beyond), 1e-13 for |x| <= 30; absolute error of `log`
below 1e-14 for normal positive numbers.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from numba import config, types
from numba.extending import intrinsic

from physics.compiled import inner

if getattr(config, "DISABLE_JIT"):  # noqa: B009  (it has no types)

    def _bits(x: float) -> int:
        return int(struct.unpack("<q", struct.pack("<d", x))[0])

    def _from_bits(n: int) -> float:
        return float(struct.unpack("<d", struct.pack("<q", n))[0])

else:

    @intrinsic
    def _bits(typing_context: Any, x: Any) -> Any:
        """The 64 bits of a float64 as an int64."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(types.int64))

        return types.int64(types.float64), build

    @intrinsic
    def _from_bits(typing_context: Any, n: Any) -> Any:
        """The float64 that has these 64 bits."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(types.float64))

        return types.float64(types.int64), build


@inner
def clip(x: float, low: float, high: float) -> float:
    """x inside [low, high]; a NaN becomes low."""
    x = x if x > low else low
    return x if x < high else high


@inner
def exp(x: float) -> float:
    """exp(x) = exp(x/128)^128, the inner one by its Taylor series of degree 11."""
    r = clip(x, -60.0, 60.0) * (1.0 / 128.0)
    p = 1.0 + r * (1.0 / 11.0)
    p = 1.0 + r * (1.0 / 10.0) * p
    p = 1.0 + r * (1.0 / 9.0) * p
    p = 1.0 + r * (1.0 / 8.0) * p
    p = 1.0 + r * (1.0 / 7.0) * p
    p = 1.0 + r * (1.0 / 6.0) * p
    p = 1.0 + r * (1.0 / 5.0) * p
    p = 1.0 + r * (1.0 / 4.0) * p
    p = 1.0 + r * (1.0 / 3.0) * p
    p = 1.0 + r * (1.0 / 2.0) * p
    p = 1.0 + r * p
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    result: float = p * p
    return result


@inner
def log(y: float) -> float:
    """log(2^k m) = k log 2 + 2 atanh((m - 1)/(m + 1)), m in [sqrt(1/2), sqrt(2))."""
    bits = _bits(y)
    k = (bits >> 52) - 1023
    m = _from_bits((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000)
    high = m > 1.4142135623730951
    m = 0.5 * m if high else m
    exponent = float(k) + (1.0 if high else 0.0)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    series = 1.0 / 13.0 + q * (1.0 / 15.0)
    series = 1.0 / 11.0 + q * series
    series = 1.0 / 9.0 + q * series
    series = 1.0 / 7.0 + q * series
    series = 1.0 / 5.0 + q * series
    series = 1.0 / 3.0 + q * series
    return exponent * 0.6931471805599453 + 2.0 * s * (1.0 + q * series)


@inner
def asinh_and_root(z: float) -> tuple[float, float]:
    """asinh(z) and sqrt(1 + z^2), which is 1 over the derivative of asinh."""
    root = math.sqrt(1.0 + z * z)
    magnitude = log(abs(z) + root)
    return (magnitude if z > 0.0 else -magnitude), root


@inner
def polynomial(p: tuple[float, ...], u: float) -> float:
    """p[0] + p[1] u + ... + p[6] u^6."""
    return p[0] + u * (p[1] + u * (p[2] + u * (p[3] + u * (p[4] + u * (p[5] + u * p[6])))))
