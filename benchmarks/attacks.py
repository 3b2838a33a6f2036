"""Attacks on training, plain and private: membership inference, inversion of an update, and a canary audit.

    python -m benchmarks.attacks [--only canary] [--json attacks.json]

Writes its tables into docs/privacy-attacks.md. All patients are synthetic. What is plain is repeatable; the noise of
what is private comes from the operating system, so those figures differ a little from run to run.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import attack_canary, attack_inversion, attack_membership
from benchmarks.tables import replace_table

PAGE = Path("docs/privacy-attacks.md")


ATTACKS = {"canary": attack_canary, "membership": attack_membership, "inversion": attack_inversion}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Attack plain and private training on synthetic patients.")
    parser.add_argument("--only", choices=list(ATTACKS), help="one attack; default: all three")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    chosen = parser.parse_args(arguments)
    results = {}
    for name in [chosen.only] if chosen.only else ATTACKS:
        started = time.perf_counter()
        found = ATTACKS[name].run()
        seconds, text = time.perf_counter() - started, ATTACKS[name].table(found)
        print(f"\n{name}, {seconds:.0f} s\n\n{text}\n", flush=True)
        replace_table(PAGE, f"attack {name}", text)
        results[name] = {"seconds": seconds, "found": [_plain(row) for row in found]}
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2) + "\n")


def _plain(row: Any) -> Any:
    """For JSON; an Estimate within is a pydantic record."""
    return json.loads(json.dumps(asdict(row), default=lambda value: value.to_json()))


if __name__ == "__main__":
    main()
