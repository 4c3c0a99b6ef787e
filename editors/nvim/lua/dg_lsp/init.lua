--- In-line completion by dg-lsp. This module is the public interface; all others may change.

local M = {}

--- Choose options, see |dg_lsp-options|. Not needed: without it the defaults and `vim.g.dg_lsp` hold.
---@param options table<string, any>|nil
function M.setup(options)
  local config = require('dg_lsp.config')
  config.set(options)
  require('dg_lsp.client').configure(config.get().settings)
end

--- Accept all of what is shown.
---@return boolean accepted False where nothing is shown: press another key then.
function M.accept()
  return require('dg_lsp.attach').accept('all')
end

--- Accept the next word.
---@return boolean accepted
function M.accept_word()
  return require('dg_lsp.attach').accept('word')
end

--- Accept what is left of the line, or the next line.
---@return boolean accepted
function M.accept_line()
  return require('dg_lsp.attach').accept('line')
end

--- Hide what is shown until the next change.
---@return boolean dismissed
function M.dismiss()
  return require('dg_lsp.insert').dismiss()
end

--- Ask for completions now; where several are offered already, show the next.
---@return boolean done
function M.trigger()
  return require('dg_lsp.attach').trigger()
end

--- Whether there is something to accept.
---@return boolean
function M.is_visible()
  return require('dg_lsp.ghost').rest() ~= nil
end

--- The state for a status line; empty where dg-lsp does not serve the buffer.
---@param bufnr integer|nil
---@return string
function M.status(bufnr)
  return require('dg_lsp.status').short(bufnr)
end

--- Change settings of the server, see |dg_lsp-settings|; `vim.NIL` brings a default back.
---@param settings table<string, any>
function M.configure(settings)
  require('dg_lsp.client').configure(settings)
end

return M
