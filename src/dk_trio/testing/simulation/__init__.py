"""Whole systems in one process: clients, servers and a provider over a faulty network, in virtual time, from a seed.

What happens is noted in a `History`; checks read it against the promises. A seed that breaks one breaks it again.
"""
