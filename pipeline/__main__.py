"""The way in: `beforehand`, or `python -m pipeline`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still loading ends like any later one."""
    try:
        from pipeline.cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
