"""`python -m dk_trio` is the command `dk-trio`."""

from dk_trio.cli import main

main()
