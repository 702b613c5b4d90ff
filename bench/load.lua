-- Load on a Transit API for wrk. KLUIS_BENCH_TOKEN and KLUIS_BENCH_BODY make the request, which
-- never changes, so that wrk builds it once. With KLUIS_BENCH_REQUESTS it stops after so many.
wrk.method = "PUT"
wrk.body = os.getenv("KLUIS_BENCH_BODY")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Vault-Token"] = os.getenv("KLUIS_BENCH_TOKEN")
wrk.headers["X-Vault-Request"] = "true"

local limit = tonumber(os.getenv("KLUIS_BENCH_REQUESTS") or "0")
local seen = 0

if limit > 0 then
  function response()
    seen = seen + 1
    if seen == limit then wrk.thread:stop() end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"refused":%d,"broken":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
