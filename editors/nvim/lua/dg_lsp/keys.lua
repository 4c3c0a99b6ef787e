--- Keys of Insert mode that mean something while a text is shown, and are what they were before where none is.

local config = require('dg_lsp.config')

local M = {}

local function termcodes(keys)
  return vim.api.nvim_replace_termcodes(keys, true, true, true)
end

--- The mapping of Insert mode that a key has without ours.
---@param key string
---@param own table|nil The mapping that the buffer had before ours.
---@return table|nil
local function mapping_of(key, own)
  if own then
    return own
  end
  local wanted = termcodes(key)
  for _, mapping in ipairs(vim.api.nvim_get_keymap('i')) do
    if termcodes(mapping.lhs) == wanted then
      return mapping
    end
  end
end

--- Press a key as if it were not mapped by us.
---@param key string
---@param own table|nil
local function press(key, own)
  local mapping = mapping_of(key, own)
  if not mapping then
    -- Of keys that are not typed only CTRL-] expands abbreviations; an arrow or the like does not even if typed.
    local pressed = termcodes(key)
    vim.api.nvim_feedkeys(#pressed == 1 and termcodes('<C-]>') .. pressed or pressed, 'in', false)
    return
  end
  local rhs = mapping.rhs
  if mapping.callback then
    rhs = mapping.callback()
    if mapping.expr ~= 1 or type(rhs) ~= 'string' then
      return
    end
    if mapping.replace_keycodes == 1 then
      rhs = termcodes(rhs)
    end
  elseif mapping.expr == 1 then
    -- Neovim tells it with key names, `<lt>` for `<` too.
    rhs = vim.api.nvim_eval(termcodes(rhs))
    if mapping.replace_keycodes == 1 then
      rhs = termcodes(rhs)
    end
  else
    rhs = termcodes(rhs or '')
  end
  -- A mapping that presses its own key would come back here for ever.
  local is_final = mapping.noremap == 1 or rhs:find(termcodes(key), 1, true)
  vim.api.nvim_feedkeys(rhs, is_final and 'in' or 'im', false)
end

local DESCRIPTIONS = {
  accept = 'Accept the in-line completion',
  accept_word = 'Accept the next word of the in-line completion',
  accept_line = 'Accept the next line of the in-line completion',
  dismiss = 'Dismiss the in-line completion',
  trigger = 'Ask for an in-line completion',
}

---@param bufnr integer
---@param name string
---@param key string
---@param action fun(): boolean
local function map(bufnr, name, key, action)
  local own
  for _, mapping in ipairs(vim.api.nvim_buf_get_keymap(bufnr, 'i')) do
    if termcodes(mapping.lhs) == termcodes(key) then
      if mapping.desc == DESCRIPTIONS[name] then
        return
      end
      own = mapping
    end
  end
  vim.keymap.set('i', key, function()
    if not action() then
      press(key, own)
    end
  end, { buffer = bufnr, desc = DESCRIPTIONS[name] })
end

--- Give a buffer the keys; `actions` return whether they did anything.
---@param bufnr integer
---@param actions table<string, fun(): boolean>
function M.map(bufnr, actions)
  for name, key in pairs(config.get().keys or {}) do
    if key then
      map(bufnr, name, key, actions[name])
    end
  end
end

return M
