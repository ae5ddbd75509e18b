"""Strategies that need no other process."""
