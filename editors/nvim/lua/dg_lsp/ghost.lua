--- The one text that is shown for the cursor, an offer or a draft of one, and whether it still fits what stands there.

local compat = require('dg_lsp.compat')
local layout = require('dg_lsp.layout')

local M = {}

local namespace = vim.api.nvim_create_namespace('dg_lsp')

---@class dg_lsp.Shown
---@field bufnr integer
---@field row integer Where the text begins, rows and bytes from 0.
---@field col integer
---@field rows integer Lines of the buffer then.
---@field before string What stands left of it.
---@field tail string What stands right of the cursor and is replaced.
---@field after string What stands behind that and stays.
---@field pieces dg_lsp.Piece[] The text.
---@field is_draft boolean

---@type dg_lsp.Shown|nil
local shown

---@class dg_lsp.Offer
---@field text string
---@field col integer Where it begins in the cursor's row, and the end of what it replaces, bytes from 0.
---@field till integer

---@type dg_lsp.Offer[] What may be meant instead of what is shown, the next one first.
local others = {}

local function line_at(row)
  return vim.api.nvim_buf_get_lines(0, row, row + 1, false)[1] or ''
end

---@return integer row, integer col the cursor's, in bytes, from 0
local function cursor()
  local place = vim.api.nvim_win_get_cursor(0)
  return place[1] - 1, place[2]
end

--- What the user has typed since, if all else is as it was then: an offer for another text is no offer.
---@param offer dg_lsp.Shown
---@return string|nil
local function typed(offer)
  if vim.api.nvim_get_current_buf() ~= offer.bufnr then
    return nil
  end
  local row, col = cursor()
  if row < offer.row or (row == offer.row and col < offer.col) then
    return nil
  end
  if line_at(offer.row):sub(1, offer.col) ~= offer.before or line_at(row):sub(col + 1) ~= offer.tail .. offer.after then
    return nil
  end
  if vim.api.nvim_buf_line_count(0) - offer.rows ~= row - offer.row then
    return nil
  end
  return table.concat(vim.api.nvim_buf_get_text(0, offer.row, offer.col, row, col, {}), '\n')
end

---@param pieces dg_lsp.Piece[]
---@return string
local function text_of(pieces)
  local text = ''
  for _, piece in ipairs(pieces) do
    text = text .. piece.text
  end
  return text
end

--- What of the shown text is still to come behind the cursor; nil if the text there is another now.
---@param offer dg_lsp.Shown
---@return string|nil
local function rest_of(offer)
  local head, text = typed(offer), text_of(offer.pieces)
  if not head or head == text or text:sub(1, #head) ~= head then
    return nil
  end
  return text:sub(#head + 1)
end

local function draw(offer, rest)
  local row, col = cursor()
  local pieces = offer.is_draft and offer.pieces or { { text = rest, group = 'DgLspGhost' } }
  local drawn = layout.compose(pieces, offer.tail, offer.after, compat.has_inline_text)
  local below = vim.tbl_map(function(chunks)
    return #chunks > 0 and chunks or { { '' } }
  end, drawn.below)
  local first = { virt_lines = below, hl_mode = 'combine' }
  if drawn.inline then
    first.virt_text = drawn.inline[1]
    first.virt_text_pos = compat.has_inline_text and 'inline' or 'overlay'
    if #drawn.inline[2] > 0 then
      vim.api.nvim_buf_set_extmark(0, namespace, row, col + #offer.tail, {
        virt_text = drawn.inline[2],
        virt_text_pos = 'inline',
        hl_mode = 'combine',
      })
    end
  else
    local column = vim.fn.strdisplaywidth(line_at(row):sub(1, col))
    first.virt_text = layout.covering(drawn.overlay, offer.tail .. offer.after, column)
    first.virt_text_pos = 'overlay'
    first.hl_mode = 'replace'
  end
  vim.api.nvim_buf_set_extmark(0, namespace, row, col, first)
end

--- Hide what is shown, and forget it.
function M.clear()
  if shown and vim.api.nvim_buf_is_valid(shown.bufnr) then
    vim.api.nvim_buf_clear_namespace(shown.bufnr, namespace, 0, -1)
  end
  shown = nil
  others = {}
end

--- Draw what is shown as it fits the text and the cursor now, or hide it.
function M.refresh()
  if not shown then
    return
  end
  local rest = rest_of(shown)
  if not rest or (shown.is_draft and typed(shown) ~= '') then
    M.clear()
    return
  end
  vim.api.nvim_buf_clear_namespace(shown.bufnr, namespace, 0, -1)
  draw(shown, rest)
end

--- Show `pieces` from byte `col` of the cursor's row on, in place of what stands from there to `till`.
---@param pieces dg_lsp.Piece[]
---@param col integer
---@param till integer
---@param is_draft boolean
local function show(pieces, col, till, is_draft)
  M.clear()
  local row, at = cursor()
  local line = line_at(row)
  shown = {
    bufnr = vim.api.nvim_get_current_buf(),
    row = row,
    col = col,
    rows = vim.api.nvim_buf_line_count(0),
    before = line:sub(1, col),
    tail = line:sub(at + 1, till),
    after = line:sub(math.max(till, at) + 1),
    pieces = pieces,
    is_draft = is_draft,
  }
  M.refresh()
end

--- From the one behind that which is shown already, if it is among them.
---@param offers dg_lsp.Offer[]
---@return dg_lsp.Offer[]
local function behind_shown(offers)
  local rest = M.rest()
  for number, offer in ipairs(offers) do
    if offer.text == rest then
      return vim.list_extend(vim.list_slice(offers, number + 1), vim.list_slice(offers, 1, number))
    end
  end
  return offers
end

--- Show the first of several offers, or the one behind that which is shown already.
---@param offers dg_lsp.Offer[]
function M.offer(offers)
  offers = behind_shown(offers)
  local first = offers[1]
  show({ { text = first.text } }, first.col, first.till, false)
  others = offers
end

--- Show the next of several offers, behind the last one the first again; only where the text is still the one that they
--- were made for.
---@return boolean shown
function M.next()
  if #others < 2 or not M.rest() or typed(shown) ~= '' then
    return false
  end
  M.offer(others)
  return true
end

--- Show a draft at the cursor, unless an offer is shown.
---@param pieces { text: string, settled: boolean }[]
function M.draft(pieces)
  if M.rest() then
    return
  end
  local _, col = cursor()
  local drawn = vim.tbl_map(function(piece)
    return { text = piece.text, group = piece.settled and 'DgLspDraftSettled' or 'DgLspDraft' }
  end, pieces)
  show(drawn, col, col, true)
end

--- Hide a draft; an offer stays.
function M.clear_draft()
  if shown and shown.is_draft then
    M.clear()
  end
end

--- What could be accepted now.
---@return string|nil
function M.rest()
  return shown and not shown.is_draft and rest_of(shown) or nil
end

--- Whether anything is shown, be it a draft.
---@return boolean
function M.is_shown()
  return shown ~= nil
end

--- Put `head` of what is shown into the buffer, and the cursor behind it; the end of all replaces the tail.
---@param head string
function M.take(head)
  if not shown then
    return
  end
  local row, col = cursor()
  local lines = vim.split(head, '\n', { plain = true })
  local till = head == M.rest() and col + #shown.tail or col
  vim.api.nvim_buf_set_text(0, row, col, row, till, lines)
  local last = #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row + #lines, #lines == 1 and col + last or last })
  vim.cmd(('silent! %d,%dfoldopen!'):format(row + 1, row + #lines))
  M.refresh()
end

return M
