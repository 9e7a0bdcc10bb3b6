"""Writes to a store as fast as it can, and says after each commit what is durable: for power cuts.

    python tests/power_writer.py FOLDER

prints `epoch E`, then `records N readings M` after each commit, until it is killed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from edge_agent.store import Draft, Issued, Store


def payload_of(epoch: int, number: int) -> bytes:
    """The bytes of a record, which its identity tells."""
    return json.dumps({"id": f"gw1:{epoch}:{number}", "x": str(number) * 40}).encode()


def main() -> None:
    """Write until killed."""
    chance = random.Random()
    with Store(Path(sys.argv[1])) as store:
        identity = store.begin(time.time_ns())
        print(f"epoch {identity.epoch}", flush=True)  # noqa: T201
        tag = store.register([("plc.count", True)])["plc.count"]
        records = readings = 0

        def freeze(_: Draft, issued: Issued) -> bytes:
            return payload_of(issued.epoch, issued.number)

        while True:
            now = time.time_ns()
            count = chance.randrange(1, 200)
            store.append([(tag, now + n, n, 0, None, None, 1, None, None) for n in range(count)], now)
            readings += count
            if chance.random() < 0.5:
                count = chance.randrange(1, 20)
                with store.transaction():
                    store.issue([Draft("production", f"t/{n % 3}", "s", {}) for n in range(count)], freeze, now)
                records += count
            if chance.random() < 0.3:
                with store.transaction():
                    store.delivery.answer([one.position for one in store.delivery.waiting(0, 10)], now, 0)
            print(f"records {records} readings {readings}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
