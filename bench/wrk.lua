-- Sends the requests listed in a file, in random order, and ends with one line of JSON.
-- Arguments: the file ("METHOD PATH TYPE BODY" a line, TYPE "-" for none), a seed, and the first number
-- for places marked with ten @, each of which gets a number of ten digits that none had before.

local requests = {}
local fresh = "@@@@@@@@@@"
local number

function init(args)
  math.randomseed(tonumber(args[2]))
  number = tonumber(args[3])
  for line in io.lines(args[1]) do
    local method, path, kind, body = line:match("^(%S+) (%S+) (%S+) (.*)$")
    if body == "" then body = nil end
    local headers = kind ~= "-" and { ["Content-Type"] = kind } or nil
    local message = wrk.format(method, path, headers, body)
    local parts, from = {}, 1
    while true do
      local at = message:find(fresh, from, true)
      if not at then break end
      parts[#parts + 1] = message:sub(from, at - 1)
      from = at + #fresh
    end
    parts[#parts + 1] = message:sub(from)
    requests[#requests + 1] = parts
  end
end

function request()
  local parts = requests[math.random(#requests)]
  if #parts == 1 then return parts[1] end
  local pieces = { parts[1] }
  for place = 2, #parts do
    pieces[#pieces + 1] = string.format("%010d", number)
    pieces[#pieces + 1] = parts[place]
    number = number + 1
  end
  return table.concat(pieces)
end

function done(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "errors": %d, "seconds": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3))
end
