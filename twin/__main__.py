"""`python -m twin`, and what the `twin` script calls."""

from __future__ import annotations

import sys

from twin.folders import foreign_folder


def main() -> None:
    """Check that Python finds our folders and not another project's, then run the command line."""
    if problem := foreign_folder():
        print(f"twin: {problem}", file=sys.stderr)
        sys.exit(2)
    from twin.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
