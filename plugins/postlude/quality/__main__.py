"""`python -m postlude.quality` compares the suites with their pins; `--pin` accepts them as they are in the code."""

from __future__ import annotations

import sys

from postlude.quality import current, pin, pinned


def main(arguments: list[str]) -> int:
    if arguments == ["--pin"]:
        print(f"pinned in {pin().name}")
        return 0
    if arguments:
        print("usage: python -m postlude.quality [--pin]", file=sys.stderr)
        return 2
    now, before = current(), pinned()
    different = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    for name in different:
        print(f"{name}: the suite is not the pinned one; review the change, then run: python -m postlude.quality --pin")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
