// The test service's definition, read from the .proto files at run time; argument 1 is the folder they are below.
'use strict';

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const definition = protoLoader.loadSync('grpc/testing/test.proto', {
  includeDirs: [process.argv[2]],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});

const testing = grpc.loadPackageDefinition(definition).grpc.testing;
const limits = {
  'grpc.max_receive_message_length': 64 << 20, // bytes; below the default the 20 MB case would not pass
  'grpc.max_send_message_length': 64 << 20,
};

module.exports = { grpc, testing, limits };
