--- What the user has chosen for the editor's side. The server's settings lie under `settings`; they are its own affair.

local M = {}

---@class dg_lsp.Keys
---@field accept string|false Take all of what is shown; where nothing is shown, the key it was before.
---@field accept_word string|false Take the next word.
---@field accept_line string|false Take the rest of the line, or the next line.
---@field dismiss string|false Hide what is shown, until the next change.
---@field trigger string|false Ask now, without regard to pauses and thresholds.

---@class dg_lsp.Config
---@field cmd string[] The command of the language server.
---@field auto_attach boolean Serve every file. Otherwise `:DgLsp enable` or, from 0.11, `vim.lsp.enable('dg_lsp')`.
---@field display 'plugin'|'core' Who shows ghost text: this plugin, or Neovim's own client (0.12 and newer).
---@field keys dg_lsp.Keys|false Keys of Insert mode in the buffers that are served; false leaves all keys alone.
---@field settings table<string, any> Settings of the server, see |dg_lsp-settings|.

---@type dg_lsp.Config
M.defaults = {
  cmd = { 'dg-lsp' },
  auto_attach = true,
  display = 'plugin',
  keys = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-C-Right>',
    dismiss = '<C-]>',
    trigger = '<M-\\>',
  },
  settings = {},
}

---@type dg_lsp.Config|nil
local chosen

local TYPES = { cmd = 'table', auto_attach = 'boolean', display = 'string', settings = 'table' }

local function names(of)
  return table.concat(vim.fn.sort(vim.tbl_keys(of)), ', ')
end

---@param options table<string, any>
---@return string|nil problem
local function problem(options)
  for name, value in pairs(options) do
    if M.defaults[name] == nil then
      return ('%s is not an option; there are: %s'):format(name, names(M.defaults))
    elseif TYPES[name] and type(value) ~= TYPES[name] then
      return ('%s must be a %s, not a %s'):format(name, TYPES[name], type(value))
    end
  end
  if options.display and options.display ~= 'plugin' and options.display ~= 'core' then
    return ("display must be 'plugin' or 'core', not '%s'"):format(options.display)
  end
  if options.keys and type(options.keys) ~= 'table' then
    return 'keys must be a table or false'
  end
  for name in pairs(options.keys or {}) do
    if M.defaults.keys[name] == nil then
      return ('keys.%s is not a key; there are: %s'):format(name, names(M.defaults.keys))
    end
  end
end

--- Lay `options` over what was chosen before; the first choice is `vim.g.dg_lsp`.
---@param options table<string, any>|nil
function M.set(options)
  local found = problem(options or {})
  if found then
    error('dg_lsp: ' .. found, 0)
  end
  local merged = vim.tbl_deep_extend('force', M.get(), options or {})
  if options and options.cmd then
    merged.cmd = options.cmd
  end
  chosen = merged
end

---@return dg_lsp.Config
function M.get()
  if not chosen then
    chosen = vim.deepcopy(M.defaults)
    M.set(vim.g.dg_lsp)
  end
  return chosen
end

return M
