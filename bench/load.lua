-- Load on a Transit API for wrk. KLUIS_BENCH_TOKEN and KLUIS_BENCH_BODY make the request, which
-- never changes, so that wrk builds it once.
wrk.method = "PUT"
wrk.body = os.getenv("KLUIS_BENCH_BODY")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Vault-Token"] = os.getenv("KLUIS_BENCH_TOKEN")
wrk.headers["X-Vault-Request"] = "true"

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"refused":%d,"broken":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
