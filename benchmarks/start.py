"""How long a person waits for the command line: help, version, the first line of a mistake.

The peer is a bare Typer application that imports what ours cannot do without (Typer, Rich, pydantic, PyYAML).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import parser, results_of

_ROOT = Path(__file__).resolve().parents[1]
_BARE = """
import pydantic, rich, typer, yaml
app = typer.Typer()
@app.command()
def main(name: str = "x"):
    "Say it."
app()
"""


def seconds(command: list[str], times: int) -> float:
    """The median time of a process."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, cwd=_ROOT, capture_output=True, check=False)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """Time, print, write."""
    arguments = parser(__doc__).parse_args()
    times = 1 if arguments.quick else 11
    with tempfile.NamedTemporaryFile("w", suffix=".py") as bare:
        bare.write(_BARE)
        bare.flush()
        twin = [sys.executable, "-m", "twin"]
        commands = {
            "python alone": [sys.executable, "-c", "pass"],
            "a bare Typer application, --help": [sys.executable, bare.name, "--help"],
            "twin --help": [*twin, "--help"],
            "twin run --help": [*twin, "run", "--help"],
            "twin": twin,
            "twin run --vehicles 0 (a mistake)": [*twin, "run", "--vehicles", "0"],
        }
        found = {name: seconds(command, times) for name, command in commands.items()}
    peer = found["a bare Typer application, --help"]
    print(f"{'':<36} {'seconds':>8} {'times the bare application':>27}")
    for name, taken in found.items():
        print(f"{name:<36} {taken:8.3f} {taken / peer:27.2f}")
    results_of("start", arguments).write({"seconds": found, "runs": times})


if __name__ == "__main__":
    main()
