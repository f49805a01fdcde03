"""python -m postlude.stack up | down | demo | logs | status: the same as `postlude up` and so on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from postlude import stack
from postlude.errors import PostludeError


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, 1 when something failed, 128 + n after signal n."""
    parser = argparse.ArgumentParser(prog="python -m postlude.stack", description="Postlude on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("up", "start everything"),
        ("demo", "one full pass on a sample shop"),
        ("down", "stop everything"),
        ("logs", "what the components said"),
        ("status", "what runs where, as JSON"),
    ):
        command = commands.add_parser(name, help=what)
        if name in ("up", "demo"):
            command.add_argument("--dags", type=Path, help="folder of DAG files (default: the project's)")
        if name == "demo":
            command.add_argument("--customers", type=int, default=20_000)
            command.add_argument("--seed", type=int, default=7)
        if name == "logs":
            command.add_argument("names", nargs="*", help="components (default: all)")
            command.add_argument("-f", "--follow", action="store_true")
            command.add_argument("-n", "--lines", type=int, default=30)
    args = parser.parse_args(argv)
    try:
        match args.command:
            case "up":
                stack.up(dags=args.dags)
            case "down":
                stack.down()
            case "demo":
                stack.demo(customers=args.customers, seed=args.seed, dags=args.dags)
            case "logs":
                stack.logs(args.names, follow=args.follow, lines=args.lines)
            case "status":
                print(json.dumps(stack.status(), indent=2))
    except PostludeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except stack.Interrupted as signal:
        return 128 + signal.signum
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
