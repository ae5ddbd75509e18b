"""`python -m dk_trio` is the command `dk-trio`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    # Ctrl-C while the imports run ends the process as the signal does, without a traceback of the import system.
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dk_trio.cli import main as run

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
