"""Agentic modules served over gRPC, natively on Trio."""

__version__ = "0.1.0"
