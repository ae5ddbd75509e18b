"""The servers under test. Each module is a program: it binds a free loopback port, prints `READY PORT`, and serves."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class ServeArguments:
    """Paths of a PEM certificate and key, or empty strings for plain text."""

    certificate: str
    key: str

    @property
    def tls(self) -> bool:
        return bool(self.certificate)


def arguments() -> ServeArguments:
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", default="")
    parser.add_argument("--key", default="")
    found = parser.parse_args()
    return ServeArguments(certificate=found.certificate, key=found.key)


def ready(port: int) -> None:
    print(f"READY {port}", flush=True)
