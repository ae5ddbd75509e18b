"""`make bench`: dk-trio against grpc.aio and grpclib, measured in one run. README.md says how to read the table."""
