--- Pure functions on completion texts and positions.

local M = {}

--- The next word: white space, then a run of word characters or of others. Characters beyond ASCII count as word
--- characters, so that names in any script are words.
---@param text string
---@return string
function M.word(text)
  local blank, rest = text:match('^(%s*)(.*)$')
  return blank .. (rest:match('^[%w_\128-\255]+') or rest:match('^[^%w_%s\128-\255]*'))
end

--- What is left of the line, or where nothing is left of it the line break and the next line.
---@param text string
---@return string
function M.line(text)
  return (text:match('^\n?[^\n]*'))
end

--- Line feeds alone, whatever line ends the file has.
---@param text string
---@return string
function M.normalise(text)
  return (text:gsub('\r\n?', '\n'))
end

--- The byte offset in `line` of an offset in the units of a position encoding; the line's end if it lies beyond.
---@param line string
---@param units integer
---@param encoding 'utf-8'|'utf-16'|'utf-32'
---@return integer
function M.byte_offset(line, units, encoding)
  if encoding == 'utf-8' then
    return math.min(units, #line)
  end
  local at = 0
  -- '😀' is one UTF-32 unit, two UTF-16 units and four bytes.
  for character in line:gmatch('[%z\1-\127\194-\244][\128-\191]*') do
    if units <= 0 then
      break
    end
    at = at + #character
    units = units - ((encoding == 'utf-16' and #character == 4) and 2 or 1)
  end
  return at
end

return M
