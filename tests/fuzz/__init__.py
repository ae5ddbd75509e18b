"""Fuzzing of everything that reads what a peer has sent: `wire` and the codec of `pb`."""
