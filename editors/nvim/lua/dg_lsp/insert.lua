--- Insert mode: what is shown follows each key, each change asks anew, and accepting is one step of undo.

local client = require('dg_lsp.client')
local ghost = require('dg_lsp.ghost')
local request = require('dg_lsp.request')
local text = require('dg_lsp.text')

local M = {}

---@type dg_lsp.Place|nil the place that was asked about last
local last

--- Whether an entry of the popup menu stands in the text, or would with the next key.
---@return boolean
local function has_selected_entry()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ 'selected' }).selected ~= -1
end

local function leave()
  last = nil
  request.cancel()
  ghost.clear()
end

--- Several events tell of one key: only another place is news.
local function follow()
  if not request.is_inserting() or has_selected_entry() then
    return leave()
  end
  if not client.of(vim.api.nvim_get_current_buf()) then
    return
  end
  local place = request.place()
  if vim.deep_equal(place, last) then
    return
  end
  last = place
  ghost.refresh()
  -- A macro is played back faster than anyone could accept anything.
  if vim.fn.reg_executing() == '' then
    request.ask(request.AUTOMATIC)
  end
end

--- A server has come for a buffer: perhaps the user is waiting in it.
---@param bufnr integer
function M.resume(bufnr)
  vim.schedule(function()
    if vim.api.nvim_get_current_buf() == bufnr then
      last = nil
      follow()
    end
  end)
end

local group

local function on(events, description, callback)
  vim.api.nvim_create_autocmd(events, { group = group, desc = description, callback = callback })
end

--- Follow Insert mode from now on.
function M.start()
  group = vim.api.nvim_create_augroup('dg_lsp_insert', { clear = true })
  client.on_draft = request.drafted
  client.on_end = leave
  on({ 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, 'Fit the in-line completion to the text', follow)
  -- The mode begins, and a menu is gone, only after these events.
  on({ 'InsertEnter', 'InsertChange', 'CompleteDone' }, 'Ask for an in-line completion', vim.schedule_wrap(follow))
  -- CTRL-C leaves Insert mode without InsertLeave; the cursor then goes back, or is in the first column already.
  local left = { 'InsertLeave', 'BufLeave', 'WinLeave', 'CursorMoved' }
  on(left, 'Hide the in-line completion', leave)
  if vim.fn.exists('##SafeState') == 1 then
    on('SafeState', 'Hide the in-line completion', function()
      if last and not request.is_inserting() then
        leave()
      end
    end)
  end
  on('CompleteChanged', 'Hide the in-line completion behind a selected entry', function()
    if has_selected_entry() then
      leave()
    end
  end)
end

local HEADS = { word = text.word, line = text.line }

--- Accept what is shown.
---@param unit 'all'|'word'|'line'
---@return boolean accepted
function M.accept(unit)
  if not request.is_inserting() or not ghost.rest() then
    return false
  end
  -- CTRL-G u before and after make it one step of undo; keys, because the API cannot break undo in Insert mode.
  local keys = ([[<C-G>u<Cmd>lua require('dg_lsp.insert').take('%s')<CR><C-G>u]]):format(unit)
  vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes(keys, true, true, true), 'in', false)
  return true
end

--- Put what is shown, as it fits now, into the buffer.
---@param unit 'all'|'word'|'line'
function M.take(unit)
  local rest = ghost.rest()
  if rest then
    ghost.take(HEADS[unit] and HEADS[unit](rest) or rest)
  end
end

--- Hide what is shown until the next change.
---@return boolean dismissed
function M.dismiss()
  local was_shown = ghost.is_shown()
  request.cancel()
  ghost.clear()
  return was_shown
end

---@return boolean asked
local function ask()
  last = request.place()
  return request.ask(request.INVOKED)
end

--- Ask now; where several completions are offered already, show the next.
---@return boolean done
function M.trigger()
  if request.is_inserting() then
    return ghost.next() or ask()
  elseif not client.of(vim.api.nvim_get_current_buf()) then
    return false
  end
  vim.cmd('startinsert')
  vim.schedule(function()
    -- Insert mode does not come from a Visual mode that a mapping has not left.
    if request.is_inserting() then
      ask()
    end
  end)
  return true
end

return M
