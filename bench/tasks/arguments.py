"""What every program of this package is told."""

import argparse
from pathlib import Path

from bench.payloads import START_MODULE
from bench.raw_driver import RawConnection


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("port", type=int)
    made.add_argument("--body", type=Path, required=True, help="a file with the framed request")
    return made


def connected(args: argparse.Namespace, path: str = START_MODULE) -> RawConnection:
    return RawConnection(args.port, path, args.body.read_bytes())
