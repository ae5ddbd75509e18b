# gRPC's own interop server (the grpc gem's pb/test/server.rb), listening where the battery wants it:
#   ruby interop_server.rb PATH_OF_SERVER_RB FOLDER [CERTIFICATE KEY]
# The official script binds one fixed port on all interfaces. Here it binds free ones on loopback, says which, serves TLS
# with the tests' certificate and a Unix socket beside plaintext, and ends with its standard input.

require 'grpc'
require 'json'

script, folder, certificate, key = ARGV

GRPC::RpcServer.prepend(Module.new do
  define_method(:add_http2_port) do |_address, _credentials|
    address = { tcp: super('127.0.0.1:0', :this_port_is_insecure), unix: "#{folder}/ruby-socket" }
    super("unix:#{address[:unix]}", :this_port_is_insecure)
    if certificate
      pair = { private_key: File.read(key), cert_chain: File.read(certificate) }
      credentials = GRPC::Core::ServerCredentials.new(nil, [pair], false)
      address[:tls] = super('localhost:0', credentials)
    end
    @where = address
  end

  define_method(:run_till_terminated) do
    running = Thread.new { run }
    wait_till_running(10)
    puts "READY #{JSON.generate(@where)}"
    $stdout.flush
    $stdin.read
    stop
    running.join(5)
  end

  define_method(:initialize) do |**options|
    limits = { 'grpc.max_receive_message_length' => 64 << 20, 'grpc.max_send_message_length' => 64 << 20 }
    super(**options, pool_size: 64, server_args: limits)
  end
end)

ARGV.replace(['--port', '0'])
load script
