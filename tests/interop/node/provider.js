// A client of a services-provider: `node provider.js PROTO_FOLDER HOST:PORT [gzip]`. Prints what it was told, as JSON.
'use strict';

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const crypto = require('crypto');

const GZIP = 2;
const SERVICES = {
  storage: ['storage_service', 'StorageService'],
  filesystem: ['filesystem_service', 'FilesystemService'],
  task_manager: ['task_manager_service', 'TaskManagerService'],
};
const JOB = { task_id: 'js', mission_id: 'missions:m', setup_id: 'setups:s', setup_version_id: 'setup_versions:v' };
const FILE = {
  context: 'missions:m', name: 'a.bin', file_type: 'FILE_TYPE_OTHER', content_type: 'application/octet-stream',
  status: 'FILE_STATUS_UPLOADING',
};

function connect(folder, address, compression) {
  const files = Object.entries(SERVICES).map(([name, [file]]) => `agentic_mesh_protocol/${name}/v1/${file}.proto`);
  const loaded = protoLoader.loadSync(files, { includeDirs: [folder], keepCase: true, longs: Number, enums: String });
  const packages = grpc.loadPackageDefinition(loaded).agentic_mesh_protocol;
  const options = {
    'grpc.max_receive_message_length': 100 << 20,
    'grpc.max_send_message_length': 100 << 20,
    ...(compression === 'gzip' ? { 'grpc.default_compression_algorithm': GZIP } : {}),
  };
  const clients = Object.fromEntries(Object.entries(SERVICES).map(([name, [, service]]) =>
    [name, new packages[name].v1[service](address, grpc.credentials.createInsecure(), options)]));
  const call = (service, method, request, seconds = 30) => new Promise((resolve) =>
    clients[service][method](request, { deadline: Date.now() + seconds * 1000 }, (error, reply) =>
      resolve(error ? { code: grpc.status[error.code], text: error.details } : reply)));
  return { clients, call };
}

async function main() {
  const { clients, call } = connect(...process.argv.slice(2));
  const told = {};
  const record = { context: 'missions:m', collection: 'c', record_id: 'r' };
  const data = { fields: { text: { stringValue: 'ä' }, list: { listValue: { values: [{ numberValue: 1.5 }] } } } };
  told.stored = await call('storage', 'StoreRecord', { ...record, data, data_type: 'OUTPUT' });
  told.again = await call('storage', 'StoreRecord', { ...record, data, data_type: 'OUTPUT' });
  told.absent = await call('storage', 'ReadRecord', { ...record, record_id: 'x' });

  const content = crypto.randomBytes(5_000_000);
  const uploaded = await call('filesystem', 'UploadFiles', { files: [{ ...FILE, content }] });
  const { file_id: fileId, checksum } = uploaded.results[0].file;
  told.checksum = checksum === crypto.createHash('sha256').update(content).digest('hex');
  const got = await call('filesystem', 'GetFile', { context: 'missions:m', file_id: fileId, include_content: true });
  told.content = content.equals(got.file.content);

  const now = { seconds: 1_767_225_600 };
  const signal = (action, reason = 'none') => ({ ...JOB, action, cancellation_reason: reason, created_at: now, payload: {} });
  let answered = false;
  const poll = call('task_manager', 'GetSignals', { task_ids: ['js'] }).then((reply) => {
    answered = true;
    return reply;
  });
  await call('task_manager', 'ListHeartbeats', { task_ids: ['js'] }); // on the same connection: the poll has begun
  told.started = await call('task_manager', 'SendSignals', { tasks: [signal('start')] });
  told.held = !answered;
  await call('task_manager', 'SendSignals', { tasks: [signal('cancel')] });
  told.polled = await poll;
  const ended = [signal('ack_cancel', 'signal_service_cancel'), signal('stop', 'signal_service_cancel')];
  await call('task_manager', 'SendSignals', { tasks: ended });
  told.empty = await call('task_manager', 'GetSignals', { task_ids: ['js'] }, 0.5);
  console.log(JSON.stringify(told));
  for (const client of Object.values(clients)) client.close();
}

main();
