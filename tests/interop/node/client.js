// Runs cases with grpc-js: `node client.js PROTO_FOLDER`. One JSON command a line in, one JSON answer a line out.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { grpc, testing, limits } = require('./service');
const { CASES } = require('./cases');

function open(command, extra = {}) {
  const credentials = command.tls
    ? grpc.credentials.createSsl(fs.readFileSync(command.tls))
    : grpc.credentials.createInsecure();
  const options = { ...limits, 'grpc.use_local_subchannel_pool': 1, ...command.options, ...extra };
  return (service) => new testing[service](command.target, credentials, options);
}

async function run(command) {
  const clients = [];
  const connect = (service = 'TestService', extra = {}) => {
    const client = open(command, extra)(service);
    clients.push(client);
    return client;
  };
  try {
    const body = CASES[command.case];
    if (!body) return { error: `no case ${command.case}` };
    await body(connect, command);
    return { ok: true };
  } catch (error) {
    return { error: String(error.stack || error) };
  } finally {
    for (const client of clients) client.close();
  }
}

async function main() {
  if (process.argv[3] === '--list') {
    console.log(JSON.stringify(Object.keys(CASES)));
    return;
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await run(JSON.parse(line))));
  }
  process.exit(0);
}

main();
