-- Drives one measurement: wrk ... -s wrk.lua URL -- HEADERS BODIES [CHECK TEXT] [THINK MS]
--
-- HEADERS: one `Name: value` a line. BODIES: one body a line, sent by turns from a random one on, so that units and rows vary.
-- CHECK TEXT: every answer must be a 200 that holds TEXT and no "errors" (it costs the generator, so measured runs leave it out).
-- THINK MS: each connection waits so long on average (exponentially distributed) before it asks again: arrivals as of many clients.
-- What came out is one line that begins with "bench:" (tools/bench/load.py reads it).

local requests, expected, think, turn = {}, nil, nil, 0
local threads = {}
wrong, sample = 0, ""

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  for line in io.lines(args[1]) do
    local name, value = line:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
  wrk.method = "POST"
  for line in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format(nil, nil, nil, line)
  end
  if args[3] == "CHECK" then
    expected = args[4]
    response = check
  elseif args[3] == "THINK" then
    think = tonumber(args[4])
    delay = pause
  end
  math.randomseed(os.time() + number)
  turn = math.random(#requests)
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function check(status, headers, body)
  if status > 399 then
    sample = status .. " " .. body:sub(1, 200):gsub("%s+", " ")
  elseif not body:find(expected, 1, true) or body:find('"errors"', 1, true) then
    wrong = wrong + 1
    sample = status .. " " .. body:sub(1, 200):gsub("%s+", " ")
  end
end

function pause()
  return math.floor(-math.log(1 - math.random()) * think + 0.5)
end

function done(summary, latency, _)
  local all, last = 0, ""
  for _, thread in ipairs(threads) do
    all = all + (thread:get("wrong") or 0)
    if thread:get("sample") ~= "" then last = thread:get("sample") end
  end
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("\nbench: requests=%d us=%d p50=%d p99=%d max=%d status=%d failed=%d wrong=%d %s\n", summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), latency.max, summary.errors.status, failed, all, last or ""))
end
