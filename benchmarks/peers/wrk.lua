-- Sends whole requests out of a file (size, newline, bytes; again and again), one after the other; prints JSON when done.
-- With a second argument the time counts up to the last answer: where a batch takes seconds, what is in flight at the end
-- would be a good part of all. Not else, for wrk then copies every answer.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } moment; int clock_gettime(int, moment *);")
local moment = ffi.new("moment")
local requests, count, index = {}, 0, 0
local threads = {}
first, last = 0, 0  -- global: what `done` can read of a thread

local function now()
   ffi.C.clock_gettime(1, moment)
   return tonumber(moment.seconds) * 1e6 + tonumber(moment.nanoseconds) / 1e3
end

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   while true do
      local size = file:read("*n")
      if not size then break end
      file:read(1)
      count = count + 1
      requests[count] = file:read(size)
   end
   file:close()
   first = now()
   if args[2] then
      response = function() last = now() end
   end
end

function request()
   index = index % count + 1
   return requests[index]
end

function done(summary, latency, _)
   local errors, duration = summary.errors, summary.duration
   for _, thread in ipairs(threads) do
      local ended = thread:get("last")
      if ended > 0 then duration = ended - thread:get("first") end
   end
   io.write(string.format(
      '\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
      summary.requests, duration, latency:percentile(50), latency:percentile(99),
      errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
