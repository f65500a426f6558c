"""The program `edgenet`, also as `python -m edgenet`."""

import sys

from edgenet import interruption


def main() -> None:
    """Run the command line of this process and exit."""
    interruption.watch()  # first of all: what is imported next takes a while
    try:
        from edgenet import cli
    except BaseException:
        if not interruption.happened():
            raise
        interruption.settle()
        print(interruption.MESSAGE, file=sys.stderr)
        sys.exit(interruption.EXIT_CODE)
    cli.main()


if __name__ == "__main__":
    main()
