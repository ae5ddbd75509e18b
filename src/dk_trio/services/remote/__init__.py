"""Strategies that ask another process, over gRPC."""
