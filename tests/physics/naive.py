"""The cell model once more, slowly: one cell, plain floats and libm, written from the equations in docs/physics.md.

Nothing of the kernel is imported but its numbers (`CellModel`, tables) and its documented schedule: coefficients are
refreshed every 10 s. The current solver is not repeated here: this takes the current that flowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from physics.constants import FARADAY, GAS_CONSTANT
from physics.modal import L2, TABLE_CELLS, WEIGHT, CellModel

MODES = range(6)
TAIL = 0.2 - sum(WEIGHT)


def series(p: tuple[float, ...], u: float) -> float:
    return sum(a * u**k for k, a in enumerate(p))


@dataclass
class NaiveCell:
    c: CellModel
    dt: float
    x_n: float
    x_p: float
    T: float
    ambient: float
    q_sei: float
    q_side: float = 0.0
    plated: float = 0.0
    dead: float = 0.0
    active_n: float = 1.0
    active_p: float = 1.0
    h_n: float = 0.0
    h_p: float = 0.0
    w_n: list[float] = field(default_factory=lambda: [0.0] * 6)
    w_p: list[float] = field(default_factory=lambda: [0.0] * 6)
    y: list[float] = field(default_factory=lambda: [0.0] * 3)
    tick: int = 0
    T_held: float = 0.0
    length_held: float = 0.0
    metal_held: float = 0.0
    active_held: tuple[float, float] = (1.0, 1.0)
    reserve: float = math.inf
    wetted: float = 1.0

    def table(self, which: int, x: float) -> float:
        k = min(int(x * TABLE_CELLS), TABLE_CELLS - 1)
        a, b = self.c.tables[: 8 * TABLE_CELLS].reshape(2, TABLE_CELLS, 2, 2)[which % 2, k, which // 2]
        return float(a + b * x)

    def half_gap(self, electrode: int, x: float) -> float:
        if self.c.gaps.size == 0:
            return 0.0
        k = min(int(x * TABLE_CELLS), TABLE_CELLS - 1)
        a, b = self.c.gaps.reshape(2, TABLE_CELLS, 2)[electrode, k]
        return float(a + b * x)

    def arrhenius(self, energy: float) -> float:
        return math.exp(energy / GAS_CONSTANT * (1.0 / self.c.t_ref - 1.0 / self.T_held))

    def share_that_is_wet(self) -> float:
        c, film = self.c, self.q_sei - self.c.sei_initial / self.c.sei_length
        gone = c.film_dries * film + c.lost_n_dries * (1.0 - self.active_n) + c.lost_p_dries * (1.0 - self.active_p)
        pores = 1.0 - c.film_fills * film
        return min((pores + self.reserve - gone) / pores, 1.0)

    def step(self, current: float) -> float:
        """Advance by dt at `current` [A]; returns the voltage at the end."""
        c, dt = self.c, self.dt
        if self.tick % max(1, round(10.0 / dt)) == 0:
            self.T_held, self.active_held = self.T, (self.active_n, self.active_p)
            self.length_held = self.q_sei * c.sei_length / self.active_n
            self.wetted = self.share_that_is_wet()
            self.metal_held = c.plated_volume * (self.plated + self.dead)
        self.tick += 1
        active_n, active_p = self.active_held
        q_n, q_p = c.q_n * self.active_n, c.q_p * self.active_p  # what is held is the gain's
        i = current / (self.wetted * c.area)
        i_n = i + self.q_side / dt
        # Particles
        self.x_n -= i_n * dt / q_n
        self.x_p += i * dt / q_p
        surface = []
        for x, w, tau, energy, q_held, flux in (
            (self.x_n, self.w_n, c.tau_n, c.e_diffusion_n, c.q_n * active_n, -i_n),
            (self.x_p, self.w_p, c.tau_p, c.e_diffusion_p, c.q_p * active_p, i),
        ):
            rate = self.arrhenius(energy) / tau  # D/R^2
            g = flux / (3.0 * rate * q_held)
            for k in MODES:
                target = WEIGHT[k] * g
                w[k] = target + math.exp(-L2[k] * rate * dt) * (w[k] - target)
            surface.append(min(max(x + sum(w) + TAIL * g, 1e-4), 1.0 - 1e-4))
        xs_n, xs_p = surface
        self.active_n -= dt * c.lam_n * self.arrhenius(c.e_lam_n) * max(self.x_n - xs_n, 0.0) ** 2
        self.active_p -= dt * c.lam_p * self.arrhenius(c.e_lam_p) * max(self.x_p - xs_p, 0.0) ** 2
        # Hysteresis: lithium that an electrode gives moves it to its delithiation branch
        for name, given, decay in (
            ("h_n", i_n * dt / (c.q_n * self.active_n), c.decay_n),
            ("h_p", -i * dt / (c.q_p * self.active_p), c.decay_p),
        ):
            branch = math.copysign(1.0, given)
            setattr(self, name, branch + math.exp(-0.5 * decay * abs(given)) * (getattr(self, name) - branch))
        # Electrolyte
        faster = self.arrhenius(c.e_electrolyte)
        i_e = i / faster
        for k in range(3):
            self.y[k] = i_e + math.exp(-c.rate_e[k] * faster * dt) * (self.y[k] - i_e)
        u_n = sum(g * y for g, y in zip(c.gain_e_n, self.y, strict=True)) + c.static_e_n * i_e
        u_p = sum(g * y for g, y in zip(c.gain_e_p, self.y, strict=True)) + c.static_e_p * i_e
        u_n = min(max(u_n, -c.deviation_max_n), c.deviation_max_n)
        u_p = min(max(u_p, -c.deviation_max_p), c.deviation_max_p)
        # Voltage
        rt_f = GAS_CONSTANT * self.T / FARADAY
        entropy = self.table(2, xs_n), self.table(3, xs_p)
        U_n = self.table(0, xs_n) + self.h_n * self.half_gap(0, xs_n) + (self.T - c.t_ref) * entropy[0]
        U_p = self.table(1, xs_p) + self.h_p * self.half_gap(1, xs_p) + (self.T - c.t_ref) * entropy[1]
        m_n = active_n * self.arrhenius(c.e_kinetic_n) * series(c.sqrt_n, u_n) * math.sqrt(xs_n * (1 - xs_n))
        m_p = active_p * self.arrhenius(c.e_kinetic_p) * series(c.sqrt_p, u_p) * math.sqrt(xs_p * (1 - xs_p))
        z_n, z_p = c.kinetic_n * i_n / m_n, c.kinetic_p * i / m_p
        eta_n, eta_p = 2.0 * rt_f * math.asinh(z_n), -2.0 * rt_f * math.asinh(z_p)
        filled = active_n * (c.area_n * (self.length_held - c.sei_initial) + self.metal_held)
        pores = 1.0 - filled / c.porosity_n
        ohmic_n = c.r_electrolyte_n * pores**-1.5 / self.arrhenius(c.e_conductivity)
        ohmic = ohmic_n + c.r_electrolyte_sp / self.arrhenius(c.e_conductivity) + c.r_solid
        film = c.sei_resistance * self.length_held / active_n
        diffusion = 2.0 * rt_f * c.transport * (series(c.ln_p, u_p) - series(c.ln_n, u_n))
        V: float = U_p + eta_p - U_n - eta_n - i * ohmic - i_n * film + diffusion
        # Heat
        H_n, H_p = (self.table(k, x) - c.t_ref * self.table(2 + k, x) for k, x in ((0, self.x_n), (1, self.x_p)))
        Q = current * (H_p - H_n - V)
        T_end = self.ambient + Q / c.cooling
        self.T = T_end + math.exp(-c.cooling * dt / c.heat_capacity) * (self.T - T_end)
        # SEI, at the temperature before the step's heat
        b = U_n + eta_n
        k_rel = math.exp(-b / (2.0 * rt_f)) * math.exp(c.sei_potential * FARADAY / (2.0 * GAS_CONSTANT * self.T_held))
        faster_sei, faster_ec = self.arrhenius(c.e_sei), self.arrhenius(c.e_sei_diffusion)
        slow = 1.0 + c.sei_rate_over_diffusivity * self.length_held * k_rel * faster_sei / faster_ec
        sei = dt * c.sei_current * active_n * faster_sei * k_rel / slow
        # Plating: mean of c_e exp(-0.65 F b/RT) over the electrode, both parabolas of depth
        salt = c.spread_salt * pores**-1.5 * self.y[1]
        y = 1.3 * (1.5 * ohmic_n * i / (2.0 * rt_f) + c.transport * salt / (1.0 + u_n))
        y = min(max(y, -2.0), 2.0)
        uneven = (1.0 + u_n) * (1.0 + 4.0 / 90.0 * y**2 - 16.0 / 5670.0 * y**3) + 4.0 / 45.0 * salt * y
        deposit = c.plating_current * active_n * math.exp(-0.65 * b / rt_f) * uneven
        dying = c.dead_rate * c.sei_initial / self.length_held
        stripping = c.stripping * active_n * math.exp(0.35 * b / rt_f)
        before = self.plated
        self.plated = (before + dt * deposit) / (1.0 + dt * (stripping + dying))
        died = dt * dying * self.plated
        self.dead += died
        self.q_side = sei + self.plated - before + died
        self.q_sei += sei
        return V
