// The test service on grpc-js: `node server.js PROTO_FOLDER FOLDER [CERTIFICATE KEY]`.
// Prints `READY {...}` and ends when standard input does. grpc-js decompresses requests, does not tell a handler about it,
// and sends its responses uncompressed.
'use strict';

const fs = require('fs');
const { grpc, testing, limits } = require('./service');

const ECHO_INITIAL = 'x-grpc-test-echo-initial';
const ECHO_TRAILING = 'x-grpc-test-echo-trailing-bin';
const TELL_DEADLINE = 'x-interop-tell-deadline';
const DETAILS = 'x-interop-status-details-bin';

const body = (size) => ({ body: Buffer.alloc(size) });

function copied(call, key, as = key) {
  const metadata = new grpc.Metadata();
  for (const value of call.metadata.get(key)) metadata.add(as, value);
  return metadata;
}

function trailers(call) {
  const metadata = copied(call, ECHO_TRAILING);
  if (call.metadata.get(TELL_DEADLINE).length > 0) {
    metadata.add(TELL_DEADLINE, String((call.getDeadline() - Date.now()) / 1000));
  }
  return metadata;
}

function greet(call) {
  if (call.metadata.get(ECHO_INITIAL).length > 0) call.sendMetadata(copied(call, ECHO_INITIAL));
}

// The failure that a request asks for, or null.
function failure(call, request) {
  const status = request.response_status;
  if (!status) return null;
  const metadata = copied(call, DETAILS, 'grpc-status-details-bin');
  return Object.assign(new Error(status.message), { code: status.code, details: status.message, metadata });
}

function unary(call, respond) {
  greet(call);
  const error = failure(call, call.request);
  if (error) respond(error);
  else respond(null, { payload: body(call.request.response_size) }, trailers(call));
}

// Sends what one request asks for. Throws the failure that it asks for.
async function answer(call, request) {
  const error = failure(call, request);
  if (error) throw error;
  for (const { size, interval_us: interval } of request.response_parameters) {
    if (interval > 0) await pause(call, interval / 1000);
    if (call.cancelled) return;
    if (!call.write({ payload: body(size) })) await new Promise((resume) => call.once('drain', resume));
  }
}

function pause(call, milliseconds) {
  return new Promise((resume) => {
    const timer = setTimeout(resume, milliseconds);
    call.once('cancelled', () => {
      clearTimeout(timer);
      resume();
    });
  });
}

// A handler of a stream. Its failure is the call's; that of a call that was cancelled meanwhile interests nobody.
const streaming = (handler) => (call) => {
  greet(call);
  handler(call).then(
    () => call.end(trailers(call)),
    (error) => call.cancelled || call.emit('error', error));
};

const serverStream = (call) => answer(call, call.request);

// Iterating a stream destroys it at its end unless told otherwise, and a destroyed call has no trailers.
const requestsOf = (call) => call.iterator({ destroyOnReturn: false });

async function fullDuplex(call) {
  for await (const request of requestsOf(call)) await answer(call, request);
}

async function halfDuplex(call) {
  const requests = [];
  for await (const request of requestsOf(call)) requests.push(request);
  for (const request of requests) await answer(call, request);
}

function clientStream(call, respond) {
  greet(call);
  let total = 0;
  call.on('data', (request) => (total += request.payload.body.length));
  call.on('end', () => respond(null, { aggregated_payload_size: total }, trailers(call)));
}

function bind(server, address, credentials) {
  return new Promise((resolve, reject) =>
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port))));
}

async function main() {
  const [folder, certificate, key] = process.argv.slice(3);
  const server = new grpc.Server(limits);
  server.addService(testing.TestService.service, {
    EmptyCall: (call, respond) => respond(null, {}),
    UnaryCall: unary,
    CacheableUnaryCall: unary,
    StreamingOutputCall: streaming(serverStream),
    StreamingInputCall: clientStream,
    FullDuplexCall: streaming(fullDuplex),
    HalfDuplexCall: streaming(halfDuplex),
  });
  const plain = grpc.ServerCredentials.createInsecure();
  const address = { tcp: await bind(server, '127.0.0.1:0', plain), unix: `${folder}/node-socket` };
  await bind(server, `unix:${address.unix}`, plain);
  if (certificate) {
    const pair = { cert_chain: fs.readFileSync(certificate), private_key: fs.readFileSync(key) };
    address.tls = await bind(server, 'localhost:0', grpc.ServerCredentials.createSsl(null, [pair]));
  }
  console.log(`READY ${JSON.stringify(address)}`);
  process.stdin.resume();
  process.stdin.on('end', () => {
    server.forceShutdown();
    process.exit(0);
  });
}

main();
