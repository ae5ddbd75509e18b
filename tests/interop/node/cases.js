// The battery's cases on grpc-js; battery/cases.py and battery/more_cases.py say what each is about.
'use strict';

const assert = require('assert');
const { grpc } = require('./service');

const LARGE_REQUEST = 271828;
const LARGE_RESPONSE = 314159;
const INPUT_SIZES = [27182, 8, 1828, 45904];
const OUTPUT_SIZES = [31415, 9, 2653, 58979];
const SPECIAL_MESSAGE = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
const ECHO_INITIAL = 'x-grpc-test-echo-initial';
const ECHO_TRAILING = 'x-grpc-test-echo-trailing-bin';
const TELL_DEADLINE = 'x-interop-tell-deadline';
const DETAILS = 'x-interop-status-details-bin';
const GZIP = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip };
const DEFLATE = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.deflate };
const { UNKNOWN, NOT_FOUND, CANCELLED, UNIMPLEMENTED, INVALID_ARGUMENT, DEADLINE_EXCEEDED } = grpc.status;

const payload = (size) => ({ body: Buffer.alloc(size) });
const largeRequest = (fields = {}) => ({ response_size: LARGE_RESPONSE, payload: payload(LARGE_REQUEST), ...fields });
const asks = (sizes, fields = {}) => ({ response_parameters: sizes.map((size) => ({ size })), ...fields });
const within = (seconds = 20) => ({ deadline: Date.now() + seconds * 1000 });

function metadataOf(...pairs) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of pairs) metadata.add(key, value);
  return metadata;
}

// A unary call: {message, headers, trailers}, or rejects with the status.
function unary(client, method, request, metadata = new grpc.Metadata(), seconds = 20) {
  return new Promise((resolve, reject) => {
    const reply = {};
    const call = client[method](request, metadata, within(seconds), (error, message) => {
      reply.message = message;
      if (error) reject(error);
    });
    call.on('metadata', (headers) => (reply.headers = headers));
    call.on('status', (status) => {
      reply.trailers = status.metadata;
      if (status.code === grpc.status.OK) resolve(reply);
    });
  });
}

async function refused(promise, code) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    assert.strictEqual(error.code, code, `${error.code} ${error.details}`);
    return error;
  }
  throw new Error(`expected status ${code}, got ${JSON.stringify(value)}`);
}

// A streaming call read one message at a time; `receive` gives null at an OK end and rejects with any other status.
class Reader {
  constructor(call) {
    this.call = call;
    this.iterator = call[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => call.on('status', resolve));
    call.on('metadata', (headers) => (this.headers = headers));
  }

  async receive() {
    const { value, done } = await this.iterator.next();
    return done ? null : value;
  }

  async expect(sizes) {
    for (const size of sizes) {
      const message = await this.receive();
      assert(message, 'the stream ended early');
      assert.strictEqual(message.payload.body.length, size);
    }
  }
}

const duplex = (client, method = 'FullDuplexCall', metadata = new grpc.Metadata(), seconds = 20) =>
  new Reader(client[method](metadata, within(seconds)));

const output = (client, request, metadata = new grpc.Metadata(), seconds = 20) =>
  new Reader(client.StreamingOutputCall(request, metadata, within(seconds)));

function upload(client, requests) {
  return new Promise((resolve, reject) => {
    const call = client.StreamingInputCall(within(), (error, message) => (error ? reject(error) : resolve(message)));
    for (const [request, flags] of requests) {
      if (flags) call.write(request, undefined, undefined, flags);
      else call.write(request);
    }
    call.end();
  });
}

const CASES = {
  async empty_unary(connect) {
    await unary(connect(), 'EmptyCall', {});
  },

  async cacheable_unary(connect) {
    await unary(connect(), 'CacheableUnaryCall', { payload: payload(6) }, metadataOf(['x-user-ip', '1.2.3.4']));
  },

  async large_unary(connect) {
    const { message } = await unary(connect(), 'UnaryCall', largeRequest());
    assert(message.payload.body.equals(Buffer.alloc(LARGE_RESPONSE)));
  },

  async client_compressed_unary(connect, { server_sees_compression: checked }) {
    const asked = (value) => largeRequest({ expect_compressed: { value } });
    if (checked) await refused(unary(connect(), 'UnaryCall', asked(true)), INVALID_ARGUMENT);
    for (const [options, value] of [[GZIP, true], [{}, false]]) {
      const { message } = await unary(connect('TestService', options), 'UnaryCall', asked(value));
      assert.strictEqual(message.payload.body.length, LARGE_RESPONSE);
    }
  },

  async server_compressed_unary(connect) {
    for (const value of [true, false]) {
      const { message } = await unary(connect(), 'UnaryCall', largeRequest({ response_compressed: { value } }));
      assert.strictEqual(message.payload.body.length, LARGE_RESPONSE);
    }
  },

  async client_streaming(connect) {
    const message = await upload(connect(), INPUT_SIZES.map((size) => [{ payload: payload(size) }]));
    assert.strictEqual(message.aggregated_payload_size, 74922);
  },

  async client_compressed_streaming(connect, { server_sees_compression: checked }) {
    const first = { payload: payload(27182), expect_compressed: { value: true } };
    const second = { payload: payload(45904), expect_compressed: { value: true } };
    if (checked) await refused(upload(connect(), [[first]]), INVALID_ARGUMENT);
    // grpc-js's generated streams take no write flags, so both messages are compressed
    const message = await upload(connect('TestService', GZIP), [[first], [second]]);
    assert.strictEqual(message.aggregated_payload_size, 73086);
  },

  async server_streaming(connect) {
    const reader = output(connect(), asks(OUTPUT_SIZES));
    await reader.expect(OUTPUT_SIZES);
    assert.strictEqual(await reader.receive(), null);
  },

  async server_compressed_streaming(connect) {
    const response_parameters = [
      { size: 31415, compressed: { value: true } },
      { size: 92653, compressed: { value: false } },
    ];
    const reader = output(connect(), { response_parameters });
    await reader.expect([31415, 92653]);
    assert.strictEqual(await reader.receive(), null);
  },

  async ping_pong(connect) {
    const reader = duplex(connect());
    for (const [index, size] of OUTPUT_SIZES.entries()) {
      reader.call.write(asks([size], { payload: payload(INPUT_SIZES[index]) }));
      await reader.expect([size]);
    }
    reader.call.end();
    assert.strictEqual(await reader.receive(), null);
  },

  async half_duplex(connect) {
    const reader = duplex(connect(), 'HalfDuplexCall');
    for (const size of OUTPUT_SIZES) reader.call.write(asks([size]));
    reader.call.end();
    await reader.expect(OUTPUT_SIZES);
    assert.strictEqual(await reader.receive(), null);
  },

  async empty_stream(connect) {
    const reader = duplex(connect());
    reader.call.end();
    assert.strictEqual(await reader.receive(), null);
  },

  async custom_metadata(connect) {
    const [initial, trailing] = ['test_initial_metadata_value', Buffer.from([0xab, 0xab, 0xab])];
    const metadata = metadataOf([ECHO_INITIAL, initial], [ECHO_TRAILING, trailing]);
    const reply = await unary(connect(), 'UnaryCall', largeRequest(), metadata);
    assert.deepStrictEqual(reply.headers.get(ECHO_INITIAL), [initial]);
    assert.deepStrictEqual(reply.trailers.get(ECHO_TRAILING), [trailing]);
    const reader = duplex(connect(), 'FullDuplexCall', metadata);
    reader.call.write(asks([LARGE_RESPONSE], { payload: payload(LARGE_REQUEST) }));
    reader.call.end();
    await reader.expect([LARGE_RESPONSE]);
    assert.strictEqual(await reader.receive(), null);
    assert.deepStrictEqual(reader.headers.get(ECHO_INITIAL), [initial]);
    assert.deepStrictEqual((await reader.ended).metadata.get(ECHO_TRAILING), [trailing]);
  },

  async status_code_and_message(connect) {
    const response_status = { code: UNKNOWN, message: 'test status message' };
    const error = await refused(unary(connect(), 'UnaryCall', { response_status }), UNKNOWN);
    assert.strictEqual(error.details, response_status.message);
    const reader = duplex(connect());
    reader.call.write({ response_status });
    reader.call.end();
    assert.strictEqual((await refused(reader.receive(), UNKNOWN)).details, response_status.message);
  },

  async special_status_message(connect) {
    const response_status = { code: UNKNOWN, message: SPECIAL_MESSAGE };
    const error = await refused(unary(connect(), 'UnaryCall', { response_status }), UNKNOWN);
    assert.strictEqual(error.details, SPECIAL_MESSAGE);
  },

  async unimplemented_method(connect) {
    await refused(unary(connect(), 'UnimplementedCall', {}), UNIMPLEMENTED);
  },

  async unimplemented_service(connect) {
    await refused(unary(connect('UnimplementedService'), 'UnimplementedCall', {}), UNIMPLEMENTED);
  },

  async cancel_after_begin(connect) {
    const client = connect();
    const ended = new Promise((resolve, reject) => {
      const call = client.StreamingInputCall(within(), (error, message) => (error ? reject(error) : resolve(message)));
      call.cancel();
    });
    await refused(ended, CANCELLED);
  },

  async cancel_after_first_response(connect) {
    const reader = duplex(connect());
    reader.call.write(asks([31415], { payload: payload(27182) }));
    await reader.expect([31415]);
    reader.call.cancel();
    await refused(reader.receive(), CANCELLED);
  },

  async timeout_on_sleeping_server(connect) {
    const reader = duplex(connect(), 'FullDuplexCall', new grpc.Metadata(), 0.001);
    reader.call.write({ payload: payload(27182) });
    await refused(reader.receive(), DEADLINE_EXCEEDED);
  },

  async deadline_between_responses(connect) {
    const response_parameters = [{ size: 7 }, { size: 7, interval_us: 60000000 }];
    const reader = output(connect(), { response_parameters }, new grpc.Metadata(), 0.5);
    await reader.expect([7]);
    await refused(reader.receive(), DEADLINE_EXCEEDED);
  },

  async deadline_reaches_the_server(connect) {
    const { trailers } = await unary(connect(), 'UnaryCall', {}, metadataOf([TELL_DEADLINE, '?']), 15);
    const left = Number(trailers.get(TELL_DEADLINE)[0]);
    assert(left > 10 && left <= 15.1, `${left}`);
  },

  async message_of_20_mb(connect) {
    const size = 20 << 20;
    const { message } = await unary(connect(), 'UnaryCall', { response_size: size, payload: payload(size) });
    assert.strictEqual(message.payload.body.length, size);
  },

  async concurrent_large_unary(connect) {
    const client = connect();
    const replies = await Promise.all(
      Array.from({ length: 100 }, () => unary(client, 'UnaryCall', largeRequest())));
    for (const { message } of replies) assert.strictEqual(message.payload.body.length, LARGE_RESPONSE);
  },

  async concurrent_streams(connect) {
    const client = connect();
    const one = async (number) => {
      const reader = duplex(client);
      for (let step = 0; step < 12; step += 1) {
        const size = (number * 37 + step * 997) % 70000;
        reader.call.write(asks([size], { payload: payload(number) }));
        await reader.expect([size]);
      }
      reader.call.end();
      assert.strictEqual(await reader.receive(), null);
    };
    await Promise.all(Array.from({ length: 30 }, (_, number) => one(number)));
  },

  async many_small_responses(connect) {
    const sizes = Array.from({ length: 5000 }, (_, step) => step % 100);
    const reader = output(connect(), asks(sizes));
    await reader.expect(sizes);
    assert.strictEqual(await reader.receive(), null);
  },

  async many_small_requests(connect) {
    const requests = Array.from({ length: 2000 }, (_, step) => [{ payload: payload(step % 10) }]);
    assert.strictEqual((await upload(connect(), requests)).aggregated_payload_size, 9000);
  },

  async late_reader(connect) {
    const sizes = Array(40).fill(100000);
    const reader = duplex(connect());
    for (const size of sizes) reader.call.write(asks([size]));
    reader.call.end();
    await reader.expect(sizes);
    assert.strictEqual(await reader.receive(), null);
  },

  async failure_after_responses(connect) {
    const reader = duplex(connect());
    reader.call.write(asks([10, 20000, 30]));
    reader.call.write({ response_status: { code: UNKNOWN, message: 'enough' } });
    await reader.expect([10, 20000, 30]);
    assert.strictEqual((await refused(reader.receive(), UNKNOWN)).details, 'enough');
  },

  async status_while_client_still_sends(connect) {
    const reader = duplex(connect());
    reader.call.write({ response_status: { code: UNKNOWN, message: 'not one more' } });
    for (let step = 0; step < 50; step += 1) reader.call.write(asks([], { payload: payload(100000) }));
    assert.strictEqual((await refused(reader.receive(), UNKNOWN)).details, 'not one more');
  },

  async every_status_code(connect) {
    const client = connect();
    for (let code = 1; code <= 16; code += 1) {
      const response_status = { code, message: `code ${code}` };
      const error = await refused(unary(client, 'UnaryCall', { response_status }), code);
      assert.strictEqual(error.details, `code ${code}`);
    }
  },

  async long_status_message(connect) {
    const printable = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index)).join('');
    const message = `${printable} 100 % %41 %zz ${'é'.repeat(400)}`;
    const error = await refused(
      unary(connect(), 'UnaryCall', { response_status: { code: UNKNOWN, message } }), UNKNOWN);
    assert.strictEqual(error.details, message);
  },

  async padded_status_message(connect) {
    const message = '  two in front, three behind   ';
    const error = await refused(
      unary(connect(), 'UnaryCall', { response_status: { code: UNKNOWN, message } }), UNKNOWN);
    assert.strictEqual(error.details, message);
  },

  async status_details(connect) {
    // google.rpc.Status{code: 5, message: "gone", details: [Any{type_url, value: every byte}]}
    const value = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const item = Buffer.concat([Buffer.from('\x0a\x13type.example/Detail\x12\x80\x02', 'latin1'), value]);
    const details = Buffer.concat([Buffer.from('\x08\x05\x12\x04gone\x1a\x98\x02', 'latin1'), item]);
    const request = { response_status: { code: NOT_FOUND, message: 'gone' } };
    const error = await refused(unary(connect(), 'UnaryCall', request, metadataOf([DETAILS, details])), NOT_FOUND);
    assert.deepStrictEqual(error.metadata.get('grpc-status-details-bin'), [details]);
  },

  async binary_metadata(connect) {
    const client = connect();
    const everything = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    for (const value of [Buffer.alloc(0), Buffer.from([0]), Buffer.from([255, 254]), Buffer.from('abc'), everything]) {
      const reply = await unary(client, 'UnaryCall', {}, metadataOf([ECHO_TRAILING, value]));
      assert.deepStrictEqual(reply.trailers.get(ECHO_TRAILING), [value]);
    }
    const [one, two] = [Buffer.from('one'), Buffer.from('two')];
    const reply = await unary(client, 'UnaryCall', {}, metadataOf([ECHO_TRAILING, one], [ECHO_TRAILING, two]));
    assert.deepStrictEqual(reply.trailers.get(ECHO_TRAILING), [one, two]);
  },

  async long_metadata(connect) {
    const value = 'v'.repeat(7000);
    const reply = await unary(connect(), 'UnaryCall', {}, metadataOf([ECHO_INITIAL, value]));
    assert.deepStrictEqual(reply.headers.get(ECHO_INITIAL), [value]);
  },

  async deflate(connect) {
    const { message } = await unary(connect('TestService', DEFLATE), 'UnaryCall', largeRequest());
    assert.strictEqual(message.payload.body.length, LARGE_RESPONSE);
  },
};

module.exports = { CASES };
