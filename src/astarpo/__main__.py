"""`python -m astarpo` is the command line, and so is `astarpo`."""

import os
import sys

INTERRUPTED, READER_GONE = 130, 141


def main() -> int:
    """Runs the command line; an interrupt or a reader that leaves ends it without a traceback."""
    try:
        # Imported here, because importing takes long enough to be interrupted.
        from astarpo.cli import main as run

        status = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("astarpo: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # `astarpo runs | head -1`
        # The interpreter flushes once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return status


if __name__ == "__main__":
    sys.exit(main())
