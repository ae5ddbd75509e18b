"""Deliberate bugs, planted one at a time in a copy of the package: each must be caught by the batteries.

python -m tests.mutants                     # all of them
python -m tests.mutants leaked-slot     # one
"""
