--- Asking: one request at a time, for one place. An answer for another place is no answer.

local client = require('dg_lsp.client')
local compat = require('dg_lsp.compat')
local ghost = require('dg_lsp.ghost')
local text = require('dg_lsp.text')

local M = {}

M.INVOKED, M.AUTOMATIC = 1, 2

---@class dg_lsp.Place
---@field bufnr integer
---@field tick integer
---@field row integer
---@field col integer

---@class dg_lsp.Request
---@field place dg_lsp.Place
---@field client table
---@field id integer|nil
---@field version integer The text that the server has.
---@field position { line: integer, character: integer }

---@type dg_lsp.Request|nil
local running

---@return dg_lsp.Place
function M.place()
  local cursor = vim.api.nvim_win_get_cursor(0)
  local bufnr = vim.api.nvim_get_current_buf()
  -- Saving is no edit, although it raises 'changedtick'.
  return { bufnr = bufnr, tick = compat.version(bufnr), row = cursor[1] - 1, col = cursor[2] }
end

---@return boolean
function M.is_inserting()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

--- Give up the request that runs; what has been offered stays.
function M.cancel()
  local request = running
  running = nil
  if request and request.id and not compat.is_stopped(request.client) then
    compat.cancel(request.client, request.id)
  end
  ghost.clear_draft()
end

---@param request dg_lsp.Request
---@param item table an inline completion item
---@return dg_lsp.Offer
local function offer_of(request, item)
  local place, range = request.place, item.range
  local insert = type(item.insertText) == 'table' and item.insertText.value or item.insertText
  local col, till = place.col, place.col
  if type(range) == 'table' then
    local line = vim.api.nvim_buf_get_lines(place.bufnr, place.row, place.row + 1, false)[1] or ''
    col = text.byte_offset(line, range.start.character, request.client.offset_encoding)
    till = text.byte_offset(line, range['end'].character, request.client.offset_encoding)
  end
  return { text = text.normalise(insert), col = col, till = till }
end

---@param request dg_lsp.Request
---@param result any
local function answered(request, result)
  if running ~= request then
    return
  end
  running = nil
  if not M.is_inserting() or not vim.deep_equal(request.place, M.place()) then
    ghost.clear_draft()
    return
  end
  local items = type(result) == 'table' and (result.items or result) or {}
  if items[1] then
    ghost.offer(vim.tbl_map(function(item)
      return offer_of(request, item)
    end, items))
  else
    ghost.clear()
  end
end

--- Ask for a completion at the cursor.
---@param kind 1|2
---@return boolean asked
function M.ask(kind)
  M.cancel()
  local place = M.place()
  local server = client.of(place.bufnr)
  if not server then
    ghost.clear()
    return false
  end
  local params = vim.lsp.util.make_position_params(0, server.offset_encoding)
  params.context = { triggerKind = kind }
  ---@type dg_lsp.Request
  local request = { place = place, client = server, position = params.position, version = 0 }
  running = request
  local sent, id = compat.request(server, 'textDocument/inlineCompletion', params, function(_, result)
    answered(request, result)
  end, place.bufnr)
  request.id = sent and id or nil
  -- Asking brings the server up to date; this is the version it has now.
  request.version = compat.version(place.bufnr)
  return sent
end

--- Show a draft if it belongs to the request that runs.
---@param note table the parameters of `dg/draft`
function M.drafted(note)
  local request = running
  if
    request
    and M.is_inserting()
    and note.textDocument.uri == vim.uri_from_bufnr(request.place.bufnr)
    and note.textDocument.version == request.version
    and vim.deep_equal(note.position, request.position)
    and vim.deep_equal(request.place, M.place())
  then
    ghost.draft(note.pieces)
  end
end

return M
