"""Where each variable of a vehicle lives: one flat float64 array per block of 128 vehicles, variable-major.

A block is `block[OFFSET + lane]`: `OFFSET` is one of the names below (row number times LANES), lane 0..127. Offsets are
compile-time constants, so the compiler can prove that rows do not overlap and vectorises over the lanes. Blocks are
always full (lanes beyond the last vehicle run idle), so a vehicle goes through the same instructions however a fleet is
divided, and its results have the same bits.

The rows of a block form groups. STATE persists from step to step. COEFFICIENTS are computed from temperature and state
every 10 s. CELL holds constants of this vehicle's cells, VEHICLE its plan, car and climate, PACK its extreme cell
groups, FAULT its faults and what they change now, SENSORS how its sensors err, BMS what its battery management system
believes. What lives no longer than a step (DEMAND, SCRATCH, SAMPLE) is in `work[OFFSET + lane]`, one array per thread
for all blocks. A new mechanism adds its rows to its group. Nothing else refers to row numbers.
"""

from __future__ import annotations

from typing import Final

from physics.columns import COLUMNS

LANES: Final = 128
FAULT_SLOTS: Final = 4  # faults that a vehicle may have
PARTICLE_MODES: Final = 6
ELECTROLYTE_MODES: Final = 3

_counts = {"block": 0, "work": 0}


def _rows(count: int = 1, of: str = "block") -> int:
    """Offset of the next `count` rows."""
    offset = _counts[of] * LANES
    _counts[of] += count
    return offset


# --- STATE ------------------------------------------------------------------------------------------------------------
X_N: Final = _rows()  # mean stoichiometry, negative electrode
X_P: Final = _rows()  # mean stoichiometry, positive electrode
W_N: Final = _rows(PARTICLE_MODES)  # diffusion modes of the negative particle, parts of the surface stoichiometry
W_P: Final = _rows(PARTICLE_MODES)
Y_E: Final = _rows(ELECTROLYTE_MODES)  # slow electrolyte modes: the current density each has followed so far [A/m2]
TEMPERATURE: Final = _rows()  # [K]
Q_SEI: Final = _rows()  # lithium bound in the SEI film, as charge [C/m2 of cell]
Q_SIDE: Final = _rows()  # charge of the last step's side reactions, not yet taken from X_N [C/m2]
PLATED: Final = _rows()  # reversibly plated lithium as charge [C/m2]
DEAD: Final = _rows()  # dead lithium as charge [C/m2]
ACTIVE_N: Final = _rows()  # active material left, fraction of fresh
ACTIVE_P: Final = _rows()
Q_LAM: Final = _rows()  # lithium lost inside lost active material, as charge [C/m2]
CURRENT: Final = _rows()  # cell current of the last step [A]
VOLTAGE: Final = _rows()  # cell voltage at the end of the last step [V]
R_DYNAMIC: Final = _rows()  # -dV/dI over one step [Ohm]
R_LINEAR: Final = _rows()  # its part without charge transfer
CHARGE_TRANSFER: Final = _rows()  # overpotentials of both electrodes at the end of the last step [V]
ASINH_N: Final = _rows()  # argument of the overpotential's asinh for a cell current of 1 A
ASINH_P: Final = _rows()
DRIFT: Final = _rows()  # change of V in a step at unchanged current [V]
HYSTERESIS_N: Final = _rows()  # between the branches of open-circuit potential: -1 lithiation, 1 delithiation
HYSTERESIS_P: Final = _rows()
X_FULL: Final = _rows()  # negative stoichiometry at the upper voltage limit, at rest
X_EMPTY: Final = _rows()  # and at the lower
COUNTED: Final = _rows()  # charge through the terminals since the BMS last counted, + discharge [C]
THROUGHPUT: Final = _rows()  # charge in both directions since new [Ah]
ENERGY_OUT: Final = _rows()  # net energy delivered at the terminals in this run [J]
HEAT: Final = _rows()  # heat made in the last step, averaged over it [W]
FLAG_RANGE: Final = _rows()  # 1 when the model has ever left its valid range
FLAG_VOLTAGE: Final = _rows()  # 1 when a voltage limit cut the current since the last sample
FLAG_POWER: Final = _rows()  # 1 when the power asked for was not delivered

# --- COEFFICIENTS (held for REFRESH_S) ------------------------------------------------------------------------------
DECAY_N: Final = _rows(PARTICLE_MODES)  # exp(-l_k^2 D dt/R^2)
DECAY_P: Final = _rows(PARTICLE_MODES)
DECAY_E: Final = _rows(ELECTROLYTE_MODES)
GAIN_N: Final = _rows()  # R^2/(3 D q): g of unit current density [m2/A]
GAIN_P: Final = _rows()
INV_Q_N: Final = _rows()  # 1/q: stoichiometry per charge [m2/C]
INV_Q_P: Final = _rows()
GAIN_E: Final = _rows()  # 1/Arrhenius of the electrolyte diffusivity
SENSE_N: Final = _rows()  # -d x_surf/d i over one step [m2/A]
SENSE_P: Final = _rows()
SENSE_E: Final = _rows()  # electrolyte's part of -dV/di over one step, divided by temperature [Ohm m2/K]
KINETIC_N: Final = _rows()  # asinh argument of unit current density at c_e = c_0 and x(1-x) = 1 [m2/A]
KINETIC_P: Final = _rows()
OHMIC: Final = _rows()  # electrolyte, solid and contact resistance [Ohm m2]
FILM: Final = _rows()  # SEI film resistance [Ohm m2]
SEI_CURRENT: Final = _rows()  # side current at b = 0 and no diffusion limit [A/m2]
SEI_DIFFUSION: Final = _rows()  # L k_sei/D_ec at b = 0
PLATE: Final = _rows()  # plating current at b = 0 and c_e = c_0 [A/m2]
STRIP: Final = _rows()  # stripping rate at b = 0 [1/s]
DYING: Final = _rows()  # rate at which plated lithium dies [1/s]
SPREAD_OHM: Final = _rows()  # b at the collector relative to the separator: half the ohmic drop [Ohm m2]
SPREAD_SALT: Final = _rows()  # the same for c_e/c_0 [m2/A]
AREA: Final = _rows()  # the part of WHOLE_AREA that electrolyte wets [m2]
LAM_N: Final = _rows()  # loss of active material at unit (x - x_surf)^2 [1/s]
LAM_P: Final = _rows()
DECAY_T: Final = _rows()  # exp(-hA dt/C)
THERMAL_RESISTANCE: Final = _rows()  # 1/(hA) [K/W]

# --- CELL (constants of this vehicle's cells) -----------------------------------------------------------------------
WHOLE_AREA: Final = _rows()  # electrode area [m2]; carries the spread of capacity
RESERVE: Final = _rows()  # electrolyte beyond what fills the fresh pores, as a share of it (dryout.py)
RESISTANCE_SCALE: Final = _rows()  # factor on ohmic and charge-transfer resistance
CONTACT: Final = _rows()  # extra series resistance [Ohm m2]
LEAK: Final = _rows()  # conductance across each cell of the pack: self-discharge [S]
COOLING_SCALE: Final = _rows()  # factor on h A
COOLING_HEALTH: Final = _rows()  # share of the active cooling that is left, 1 to 0
FILM_SCALE: Final = _rows()  # factor on the SEI's resistivity
SEI_SCALE: Final = _rows()  # factor on the SEI's rate; 0 switches it off
AMBIENT: Final = _rows()  # air around the cell [K]

# --- VEHICLE --------------------------------------------------------------------------------------------------------
MODE: Final = _rows()  # index in columns.MODES
NEXT_EVENT: Final = _rows()  # tick of the next entry of the plan
EVENT: Final = _rows()  # which entry: 2 trip + (0 start, 1 end)
DAY: Final = _rows()  # local day of the plan, days since 1970-01-01
VEHICLE: Final = _rows()  # index in the fleet, the key of all its random draws
TRACE: Final = _rows()  # position in the speed table, 0 when not driving
TRACE_START: Final = _rows()
TRACE_END: Final = _rows()
SPEED: Final = _rows()  # at the end of the tick [m/s]
ODOMETER: Final = _rows()  # [m]
CABIN: Final = _rows()  # heating or cooling of the cabin [W]
SPEED_SCALE: Final = _rows()  # the driver's factor on trace speeds
PACE: Final = _rows()  # the same, lower while the BMS holds back power
MASS: Final = _rows()  # with payload [kg]
AUXILIARY: Final = _rows()  # while driving [W]
STANDBY: Final = _rows()  # while parked [W]
CHARGER: Final = _rows()  # AC power from the wall [W]
SOC_LIMIT: Final = _rows()  # state of charge at which the owner lets charging end
STOP_AT: Final = _rows()  # negative stoichiometry at which the BMS will have counted to where this charge ends
CITY: Final = _rows()
UTC_OFFSET: Final = _rows()  # [s]
HABIT: Final = _rows()  # probability of plugging in on arrival
CHARGE_FROM: Final = _rows()  # time of day from which the charger at home gives current [s]; below 0: always
PLUGGED: Final = _rows()  # 1 while the vehicle waits for that time
USE: Final = _rows()  # indices in default_fleet.USES, before and after a fork's turn: duty.uses_of
MODEL: Final = _rows()  # index in car_models.CAR_MODELS
PARALLEL: Final = _rows()  # cells in parallel in a group
DRAG: Final = _rows()  # half the air's density times drag area [kg/m]
ROLLING: Final = _rows()  # coefficient of rolling resistance
FAST_POWER: Final = _rows()  # what the car asks of a fast charger now [W]
WARM_TO: Final = _rows()  # battery temperature below which the heater is on while driving [K]

# --- PACK: its weakest and its strongest cell group, as deviations from the mean (pack.py) ----------------------------
WEAK_CAPACITY: Final = _rows()  # relative, below 0
WEAK_RESISTANCE: Final = _rows()  # relative, above 0
WEAK_SHIFT: Final = _rows()  # negative stoichiometry relative to the mean when the mean is full
STRONG_CAPACITY: Final = _rows()
STRONG_RESISTANCE: Final = _rows()
STRONG_SHIFT: Final = _rows()
HOT_SHARE: Final = _rows()  # additional rise of the warmest cell, as a share of the mean's rise over the air
PACK_SEI: Final = _rows()  # Q_SEI when the deviations last aged
BLED: Final = _rows()  # stoichiometry that balancing could have moved so far; lives reset it every day
V_LOWEST: Final = _rows()  # voltage of the lowest cell relative to the mean [V], at most 0
V_HIGHEST: Final = _rows()
POWER_LEFT: Final = _rows()  # share of the discharge power that the BMS allows; 0 when it has stopped the vehicle
STOPS: Final = _rows()  # times that it has done so

# --- FAULT ------------------------------------------------------------------------------------------------------------
FAULT: Final = _rows(FAULT_SLOTS)  # index in faults.FAULTS, 0 for none; the first slots are used first
FAULT_ONSET: Final = _rows(FAULT_SLOTS)  # seconds since 1970
FAULT_SEVERITY: Final = _rows(FAULT_SLOTS)  # in the unit of its kind
SEI_EXTRA: Final = _rows()  # of the rate of SEI growth, added
WEAK_LOST: Final = _rows()  # relative capacity that the weakest group has lost besides WEAK_CAPACITY
SHORT_S: Final = _rows()  # conductance of an internal short now [S]
SHORT_K: Final = _rows()  # how much warmer a shorted cell is than the warmest of the others [K]
PARKED_W: Final = _rows()  # STANDBY, and what a fault draws besides [W]
V_WRONG: Final = _rows()  # what the pack's voltage sensor reads too much [V]
A_WRONG: Final = _rows()  # its current sensor, before the BMS zeroes it [A]
K_WRONG: Final = _rows()  # one temperature probe [K]
K_STUCK: Final = _rows()  # what a probe that does not move reads [degC], faults.NOT_STUCK if all do
CELL_WRONG: Final = _rows()  # the channel of the lowest cell group [V]
SERIES_OHM: Final = _rows()  # of contactors, between the cells and the pack's terminals
ISOLATION: Final = _rows()  # conductance from the battery to the chassis [S]
FAILED: Final = _rows()  # 1 after thermal runaway: the vehicle is out of service

# --- SENSORS: how each of a vehicle's sensors errs (sensors.py) ------------------------------------------------------
NOISE_KEY: Final = _rows()  # 53 random bits as a whole number: the key of all noise
V_GAIN: Final = _rows()  # relative
V_ZERO: Final = _rows()  # pack [V]
A_GAIN: Final = _rows()
A_ZERO: Final = _rows()  # pack [A], left after the BMS's own zeroing
CELL_GAIN: Final = _rows()
CELL_LOW_ZERO: Final = _rows()  # of the channel that measures the lowest cell group [V]
CELL_HIGH_ZERO: Final = _rows()
K_GAIN: Final = _rows()  # of the distance from 25 degC
K_ZERO: Final = _rows()  # mean of the temperature sensors [K]
K_LOW_ZERO: Final = _rows()  # of the coldest and of the warmest sensor
K_HIGH_ZERO: Final = _rows()
AIR_ZERO: Final = _rows()  # [K]
SOC_BIAS: Final = _rows()  # of the BMS's table of open-circuit voltages, as SoC
SOH_BIAS: Final = _rows()  # relative; SOH_FIXED for one that always reports 1
R_GAIN: Final = _rows()  # relative, of the resistance estimate

# --- BMS: what the battery management system believes (bms.py) --------------------------------------------------------
SOC_BMS: Final = _rows()
SOC_SD: Final = _rows()  # how far it thinks that may be wrong
SOH_BMS: Final = _rows()
RESTED: Final = _rows()  # for how long [s]
COUNTED_AT: Final = _rows()  # when it last counted [s since 1970]
R_PULSE: Final = _rows()  # of the cell: 10 s, at its temperature and state of charge [Ohm]
R_PULSE_25: Final = _rows()  # at 25 degC
CODES: Final = _rows()  # bit field of columns.DIAGNOSTICS

ROWS: Final = _counts["block"]
BLOCK_SIZE: Final = ROWS * LANES

# --- WORK: DEMAND ---------------------------------------------------------------------------------------------------
DT: Final = _rows(of="work")  # length of this step [s]
NOW: Final = _rows(of="work")  # seconds since 1970, UTC
ELAPSED: Final = _rows(of="work")  # since the slow parts (faults, pack) last acted [s]
POWER: Final = _rows(of="work")  # cell power asked for, + discharges [W]
CURRENT_LOW: Final = _rows(of="work")  # [A]
CURRENT_HIGH: Final = _rows(of="work")
VOLTAGE_LOW: Final = _rows(of="work")  # [V]
VOLTAGE_HIGH: Final = _rows(of="work")

# --- WORK: SCRATCH --------------------------------------------------------------------------------------------------
SPEED_BEFORE: Final = _rows(of="work")  # at the beginning of the step [m/s]
PUMP: Final = _rows(of="work")  # heat that the thermal management brings to a cell [W], below 0 when it cools

SCRATCH_N: Final = _rows(of="work")
SCRATCH_P: Final = _rows(of="work")
SCRATCH_E: Final = _rows(of="work")
ASKED: Final = _rows(of="work")  # current before the voltage limits [A]
V_LINEAR: Final = _rows(of="work")
FLUX_N: Final = _rows(of="work")  # current density with the side reactions of the last step [A/m2]
SURFACE_N: Final = _rows(of="work")  # surface stoichiometries
SURFACE_P: Final = _rows(of="work")
SALT_N: Final = _rows(of="work")  # mean c_e/c_0 - 1 of the electrodes
SALT_P: Final = _rows(of="work")
INSIDE: Final = _rows(of="work")  # 1 where all is within the fitted range
OCP_N: Final = _rows(of="work")
OCP_P: Final = _rows(of="work")
SLOPE_N: Final = _rows(of="work")
SLOPE_P: Final = _rows(of="work")
ENTROPY_N: Final = _rows(of="work")  # dU/dT at the surface [V/K]
ENTROPY_P: Final = _rows(of="work")
ENTHALPY: Final = _rows(of="work")  # of the cell at its mean stoichiometries, as a potential [V]

NOISE: Final = _rows(8, of="work")  # of one reading of each sensor, of unit standard deviation

# --- WORK: SAMPLE ---------------------------------------------------------------------------------------------------
SAMPLE: Final = _rows(len(COLUMNS), of="work")  # telemetry, one row per column
TRUE_NAMES: Final = (
    *("soc", "soh", "pulse_ohm", "q_sei", "plated", "dead", "q_lam", "active_n", "active_p", "failed", "outside"),
    *("throughput", "odometer", "stops", "usable", "wetted"),
)
TRUE: Final = _rows(len(TRUE_NAMES), of="work")  # the truth, which follows the sample at once

WORK_SIZE: Final = _counts["work"] * LANES

REFRESH_S: Final = 10.0
CAPACITY_REFRESH_S: Final = 60.0
