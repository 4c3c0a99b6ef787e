--- How a text that is not there yet is drawn into a line that is: pure, from pieces to what extmarks need.

local M = {}

---@class dg_lsp.Piece
---@field text string
---@field group string|nil Highlight group; nil for what stands in the buffer already.

---@alias dg_lsp.Chunk { [1]: string, [2]: string|nil }

---@class dg_lsp.Layout
---@field inline dg_lsp.Chunk[][]|nil Before the tail, and behind it: the line itself stays as it is.
---@field overlay dg_lsp.Chunk[]|nil Over the rest of the line.
---@field below dg_lsp.Chunk[][] Further lines.

---@param pieces dg_lsp.Piece[]
---@return string
local function join(pieces)
  local texts = {}
  for _, piece in ipairs(pieces) do
    texts[#texts + 1] = piece.text
  end
  return table.concat(texts)
end

--- Where `tail` stands in `text` for the last time.
---@return integer|nil first, integer|nil last
local function find_last(text, tail)
  local first, last
  local from = 1
  while tail ~= '' do
    local found, till = text:find(tail, from, true)
    if not found then
      break
    end
    first, last, from = found, till, found + 1
  end
  return first, last
end

--- Pieces of the bytes `from` to `to`; `keep` leaves their groups, otherwise they are as what stands there.
local function slice(pieces, from, to, keep)
  local sliced, at = {}, 0
  for _, piece in ipairs(pieces) do
    local text = piece.text:sub(math.max(from - at, 1), math.max(to - at, 0))
    if text ~= '' then
      sliced[#sliced + 1] = { text = text, group = keep and piece.group or nil }
    end
    at = at + #piece.text
  end
  return sliced
end

local function append(list, more)
  for _, piece in ipairs(more) do
    list[#list + 1] = piece
  end
end

---@param pieces dg_lsp.Piece[]
---@return dg_lsp.Chunk[][]
local function split(pieces)
  local lines = { {} }
  for _, piece in ipairs(pieces) do
    for index, part in ipairs(vim.split(piece.text, '\n', { plain = true })) do
      if index > 1 then
        lines[#lines + 1] = {}
      end
      if part ~= '' then
        table.insert(lines[#lines], { part, piece.group })
      end
    end
  end
  return lines
end

--- Draw `pieces` at the cursor, in place of `tail`, with `after` behind them.
---
--- Where the pieces contain the tail, the tail is drawn as the text that it is, not as ghost text.
---@param pieces dg_lsp.Piece[]
---@param tail string What stands right of the cursor and is replaced.
---@param after string What stands behind that and stays.
---@param can_inline boolean Whether text can be pushed aside.
---@return dg_lsp.Layout
function M.compose(pieces, tail, after, can_inline)
  local text = join(pieces)
  local first, last = find_last(text, tail)
  local before = first and slice(pieces, 1, first - 1, true) or pieces
  local behind = first and slice(pieces, last + 1, #text, true) or {}
  local one_line = not text:find('\n', 1, true)
  if can_inline and ((one_line and (first or tail == '')) or tail .. after == '') then
    local lines = split(before)
    local head = table.remove(lines, 1)
    return { inline = { head, split(behind)[1] }, below = lines }
  end
  local drawn = {}
  append(drawn, before)
  if first then
    append(drawn, slice(pieces, first, last, false))
  end
  append(drawn, behind)
  append(drawn, { { text = after } })
  local lines = split(drawn)
  return { overlay = table.remove(lines, 1), below = lines }
end

--- `chunks`, filled up with blanks so that they hide the `hidden` text that stands under them.
---@param chunks dg_lsp.Chunk[]
---@param hidden string
---@param column integer Display column at which both begin.
---@return dg_lsp.Chunk[]
function M.covering(chunks, hidden, column)
  local text = ''
  for _, chunk in ipairs(chunks) do
    text = text .. chunk[1]
  end
  local missing = vim.fn.strdisplaywidth(hidden, column) - vim.fn.strdisplaywidth(text, column)
  if missing <= 0 then
    return chunks
  end
  return vim.list_extend(vim.list_extend({}, chunks), { { (' '):rep(missing) } })
end

return M
