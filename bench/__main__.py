"""`python -m bench`: the figures as a table; `--json` prints them as JSON; both are kept in bench/results/.

    python -m bench                       everything, about twenty minutes, most of them for a million of bad answers
    python -m bench modbus --seconds 60   one benchmark, for longer
    python -m bench --repeat 3            three rounds; of each figure the median

A bar that is missed says MISSED and is no error: machines are noisy, so look at the ratio, and run it again. The exit
code is 1 only when a benchmark could not be run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import (
    attribution,
    backlog,
    fuzz_modbus,
    fuzz_opcua,
    fuzz_serial,
    half_open,
    isolation,
    log,
    metrics,
    modbus,
    opcua,
    outage,
    records,
    recovery,
    start,
    store,
)
from .figures import Figure, document, machine, middle, table
from .processes import Failed

BENCHMARKS: dict[str, Callable[[Path, float], list[Figure]]] = {
    "modbus": modbus.run,
    "attribution": attribution.run,
    "fuzz-modbus": fuzz_modbus.run,
    "opcua": opcua.run,
    "isolation": isolation.run,
    "half-open": half_open.run,
    "store": store.run,
    "start": start.run,
    "records": records.run,
    "backlog": backlog.run,
    "outage": outage.run,
    "recovery": recovery.run,
    "log": log.run,
    "metrics": metrics.run,
    "fuzz-serial": fuzz_serial.run,
    "fuzz-opcua": fuzz_opcua.run,
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what was asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a reading costs, and which bars hold.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is measured (default: 20)")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; of each figure the median is shown")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    given = parser.parse_args()
    if unknown := set(given.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    figures, failed = measure(given.names or list(BENCHMARKS), given.seconds, given.repeat)
    text = document(figures, given.seconds, given.repeat)
    shown = f"{table(figures)}\n\n{machine()}; {given.seconds:g} s each, rounds: {given.repeat}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(text + "\n", encoding="utf-8")
    (RESULTS / "latest.txt").write_text(shown + "\n", encoding="utf-8")
    print(text if given.json else shown)
    return 1 if failed else 0


def measure(names: list[str], seconds: float, repeats: int = 1) -> tuple[list[Figure], bool]:
    """The figures of these benchmarks, and whether one could not be run."""
    figures: list[Figure] = []
    failed = False
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures += middle([_once(name, seconds) for _ in range(repeats)])
        except Failed as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return figures, failed


def _once(name: str, seconds: float) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        return BENCHMARKS[name](Path(folder), seconds)


if __name__ == "__main__":
    sys.exit(main())
