"""For each variable the test that shows its effect."""

# File -> test -> variables, without their DIGITALKIN_.
_BY_FILE = {
    "tests/admission/test_admission.py": {
        "test_slots_bound_what_runs": "MAX_CONCURRENT_TASKS",
    },
    "tests/cli/test_author_errors.py": {
        "test_a_fetcher_that_hangs_is_told_in_the_form_and_in_the_log": "FETCH_TIMEOUT",
    },
    "tests/cli/test_provider_ask.py": {
        "test_without_an_address_the_provider_of_the_settings_is_asked": "PROVIDER",
    },
    "tests/cli/test_services_under_load.py": {
        "test_what_was_acknowledged_survives_a_kill": "DATA_DIR",
    },
    "tests/cli/test_shutdown.py": {
        "test_jobs_end_within_the_grace_or_are_cut": "GRACE",
    },
    "tests/cli/test_workers.py": {
        "test_channels_are_spread_jobs_are_found_anywhere_and_a_killed_worker_takes_only_its_own_along": "WORKERS",
    },
    "tests/docs/test_context_features.py": {
        "test_the_mode_chooses_between_two_strategies": "SERVICE_MODE",
        "test_the_session_has_its_ids_and_the_time_zone_of_the_server": "TIMEZONE",
    },
    "tests/mixins/test_history.py": {
        "test_files_are_counted_by_appends_and_have_a_record_of_their_own": "FILE_HISTORY_FLUSH_THRESHOLD",
        "test_messages_are_written_every_few_appends_and_the_rest_at_the_end": "CHAT_HISTORY_FLUSH_THRESHOLD",
    },
    "tests/module/test_remote_mode.py": {
        "test_a_server_registers_and_takes_it_back": "SERVER_CHANNEL_ADVERTISE_HOST",
    },
    "tests/module/test_served.py": {
        "test_the_module_id_of_the_settings": "MODULE_ID",
    },
    "tests/module/test_server.py": {
        "test_the_limit_of_the_settings": "MAX_CONCURRENT_RPCS",
        "test_the_settings_give_the_address": "SERVER_CHANNEL_HOST SERVER_CHANNEL_PORT",
    },
    "tests/module/test_service_config_setup_failures.py": {
        "test_the_timeout": "CONFIG_SETUP_TIMEOUT",
    },
    "tests/module/test_service_refusals.py": {
        "test_a_full_server": """
            MAX_QUEUED_TASKS ADMISSION_TIMEOUT TASK_WAIT_TIMEOUT BACKPRESSURE_STRATEGY BACKPRESSURE_TIMEOUT
            QUEUE_SLOT_TIMEOUT
        """,
    },
    "tests/module/test_service_setups.py": {
        "test_a_setup_is_fetched_again_when_it_is_old": "SETUP_CACHE_TTL",
    },
    "tests/module/test_timeouts.py": {
        "test_a_stalled_reader_is_told_and_so_is_who_asks": "STREAM_DRAIN_TIMEOUT",
        "test_completion_time_through_the_stack": "COMPLETION_TIMEOUT",
        "test_execution_time_begins_with_the_slot": "EXECUTION_TIMEOUT",
    },
    "tests/observe/test_inspector.py": {
        "test_a_token_is_asked_for_and_does_not_stay_in_the_address": "INSPECTOR_TOKEN",
        "test_it_is_read_only_unless_told_otherwise": "INSPECTOR_ACTIONS",
        "test_it_is_served_beside_the_server_for_the_length_of_the_block": "INSPECTOR_PORT",
        "test_what_others_can_reach_needs_a_token": "INSPECTOR_HOST",
    },
    "tests/observe/test_metrics.py": {
        "test_the_endpoint_is_open_for_the_length_of_the_block_whatever_a_slow_scraper_does": "METRICS_PORT",
    },
    "tests/observe/test_profilers.py": {
        "test_a_file_for_each_job_names_the_authors_functions": "PROFILER PROFILE_OUTPUT_DIR",
    },
    "tests/observe/test_stalls.py": {
        "test_the_stack_that_blocks_the_loop_is_taken_while_it_does": "STALL_THRESHOLD",
    },
    "tests/observe/test_traces.py": {
        "test_the_share_of_traces_that_begin_here": "TRACES_SAMPLE",
    },
    "tests/observe/test_traces_sent.py": {
        "test_the_queue_sends_to_the_path_of_otlp": "TRACES_ENDPOINT",
    },
    "tests/security/test_handshakes.py": {
        "test_a_client_that_mtls_refuses": "TLS_CERT TLS_KEY TLS_CLIENT_CA CLIENT_CA CLIENT_CERT CLIENT_KEY",
    },
    "tests/security/test_limits.py": {
        "test_one_call_more_of_a_client_is_refused_and_another_client_is_not": "MAX_RPCS_PER_CLIENT",
        "test_one_connection_more_of_an_address_is_told_to_be_calm": "MAX_CONNECTIONS_PER_CLIENT",
    },
    "tests/security/test_reload.py": {
        "test_the_next_connection_gets_the_new_certificate_while_an_old_call_goes_on": "TLS_RELOAD_INTERVAL",
    },
    "tests/security/test_tokens.py": {
        "test_a_call_with_the_token_and_its_handler_does_not_see_it": "AUTH_TOKEN CLIENT_TOKEN",
        "test_a_token_that_is_taken_out_of_the_file_lets_nobody_in_any_more": "AUTH_TOKENS_FILE",
        "test_with_tls_or_by_permission_it_may_go_anywhere": "CLIENT_TOKEN_PLAINTEXT",
    },
    "tests/services/test_provider_clients.py": {
        "test_dns_resolution": "GRPC_DNS_RESOLUTION_MS",
        "test_initial_and_max_reconnect": "GRPC_INITIAL_RECONNECT_MS GRPC_MAX_RECONNECT_MS",
        "test_keepalive_time_and_timeout": "GRPC_KEEPALIVE_TIME_MS GRPC_KEEPALIVE_TIMEOUT_MS",
        "test_min_ping_interval": "GRPC_MIN_PING_INTERVAL_MS",
        "test_min_reconnect": "GRPC_MIN_RECONNECT_MS",
        "test_query_max_retries_and_backoff_base": "GRPC_QUERY_MAX_RETRIES GRPC_QUERY_BACKOFF_BASE_MS",
        "test_query_timeout": "GRPC_QUERY_TIMEOUT",
        "test_retry_initial_backoff_and_multiplier": "GRPC_RETRY_INITIAL_BACKOFF GRPC_RETRY_BACKOFF_MULTIPLIER",
        "test_retry_max_attempts": "GRPC_RETRY_MAX_ATTEMPTS",
        "test_retry_max_backoff": "GRPC_RETRY_MAX_BACKOFF",
    },
    "tests/settings/test_effects.py": {
        "test_initial_poll_interval_and_its_ceiling": "SIGNAL_POLL_INTERVAL SIGNAL_INITIAL_POLL_INTERVAL",
        "test_poll_timeout": "POLL_TIMEOUT",
        "test_send_retries_and_backoff": "SIGNAL_SEND_RETRIES SIGNAL_SEND_BACKOFF_MS",
        "test_setup_cache_max": "SETUP_CACHE_MAX",
        "test_tool_resolve_timeout": "TOOL_RESOLVE_TIMEOUT",
    },
    "tests/settings/test_effects_of_observe.py": {
        "test_log_dir_and_the_level_of_its_file": "LOG_DIR FILE_LOG_LEVEL",
        "test_log_file": "LOG_FILE",
        "test_log_format": "LOG_FORMAT",
        "test_log_level": "LOG_LEVEL",
        "test_metrics_host": "METRICS_HOST",
        "test_what_looks_at_a_server": "ACCESS_LOG INSPECTOR",
    },
    "tests/settings/test_effects_of_security.py": {
        "test_secure_or_insecure": "SERVER_CHANNEL_SECURITY CLIENT_SECURITY",
    },
    "tests/settings/test_effects_of_server.py": {
        "test_cleanup_grace": "CLEANUP_GRACE",
        "test_compression": "SERVER_GRPC_COMPRESSION",
        "test_heartbeat_interval": "HEARTBEAT_INTERVAL",
        "test_keepalive": "SERVER_GRPC_OPTIONS_KEEPALIVE_TIME SERVER_GRPC_OPTIONS_KEEPALIVE_TIMEOUT",
        "test_max_message_length": """
            SERVER_GRPC_OPTIONS_MAX_RECEIVE_MESSAGE_LENGTH SERVER_GRPC_OPTIONS_MAX_SEND_MESSAGE_LENGTH
        """,
        "test_min_ping_interval": "SERVER_GRPC_OPTIONS_MIN_PING_INTERVAL",
        "test_services_that_can_be_switched_off": "SERVER_HEALTH_CHECK SERVER_REFLECTION",
        "test_thread_pool_workers": "THREAD_POOL_WORKERS",
    },
    "tests/settings/test_sources.py": {
        "test_a_preset_has_the_guide_s_numbers": "PRESET",
    },
    "tests/signals/test_inbox.py": {
        "test_a_slow_subscriber_loses_the_newest_but_no_cancel": "SIGNAL_QUEUE_SIZE",
    },
    "tests/signals/test_outbox.py": {
        "test_a_call_has_a_deadline": "GRPC_TIMEOUT",
        "test_a_full_batch_is_sent_at_once": "SIGNAL_MAX_BATCH_SIZE",
        "test_a_signal_waits_for_others_for_the_flush_interval": "SIGNAL_FLUSH_INTERVAL",
    },
}

EFFECTS = {
    name if name.startswith(("SERVER_", "SERVICE_")) else f"DIGITALKIN_{name}": f"{path}::{test}"
    for path, tests in _BY_FILE.items()
    for test, names in tests.items()
    for name in names.split()
}
"""Variable -> file and name of the test."""
