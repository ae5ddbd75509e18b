# gRPC's own interop client (the grpc gem's pb/test/client.rb), one case for each JSON line of standard input:
#   ruby interop_client.rb PATH_OF_CLIENT_RB
# The cases, their stub and their checks are the official script's; only its command line is replaced.

require 'json'

load ARGV.fetch(0)

def run_case(command)
  args = Args.new
  host, _, port = command['target'].rpartition(':')
  args.server_host = host
  args.server_port = port
  args.server_host_override = ''
  args.secure = !command['tls'].nil?
  args.use_test_ca = false # with TLS the roots are those of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
  args.test_case = command['case']
  NamedTests.new(create_stub(args), args).method(command['case']).call
  { ok: true }
rescue StandardError, NotImplementedError => e
  { error: "#{e.class}: #{e.message}\n#{(e.backtrace || []).first(12).join("\n")}" }
end

$stdin.each_line do |line|
  puts JSON.generate(run_case(JSON.parse(line)))
  $stdout.flush
end
exit!(0) # the C core may wait for its channels otherwise
