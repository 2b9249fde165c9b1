-- Sends the requests of a file one after the other and tells the outcome as
-- JSON. The file holds, for each request, its length in decimal, a line end,
-- and its bytes.
local requests, count, at = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    count = count + 1
    requests[count] = file:read(length)
  end
  file:close()
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nOUTCOME {"durationUs":%d,"requests":%d,"bytes":%d,"badStatus":%d,' ..
    '"broken":%d,"meanUs":%.1f,"p50Us":%d,"p99Us":%d}\n',
    summary.duration, summary.requests, summary.bytes, e.status,
    e.connect + e.read + e.write + e.timeout,
    latency.mean, latency:percentile(50), latency:percentile(99)))
end
