"""The interop battery: one list of cases, the clients that run it, and the servers it is run against.

Nothing here imports pytest. The cases speak to a `Caller` (caller.py), so grpcio's two clients and dk_trio's own run
the same text; the Ruby and Node clients carry their own. Peers run in processes of their own and end when their
standard input does, so that none can outlive the tests.
"""
