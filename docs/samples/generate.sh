# Needs: pip install grpcio-tools betterproto2-compiler==0.10.1 ruff
mkdir -p gen
python -m grpc_tools.protoc --proto_path=. --python_betterproto2_out=gen \
  --python_betterproto2_opt=server_generation=async \
  --python_betterproto2_opt=client_generation=async \
  --include_imports --descriptor_set_out=gen/greeter.bin \
  greeter.proto
