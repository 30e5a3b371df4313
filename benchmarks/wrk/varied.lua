-- No two requests are alike: a new target and a new header value each time, so that a server which
-- remembers whole request heads, targets or header lines gains nothing. The argument sets rounds apart.
local run = "0"
local count = 0

function init(args)
  run = args[1] or "0"
end

function request()
  count = count + 1
  local id = run .. "-" .. count
  return "GET /items/" .. id .. "?page=" .. count .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nX-Request-Id: " .. id .. "\r\n\r\n"
end
