--- What has other names in other versions of Neovim, from 0.7 to 0.12. Nothing else asks for the version.

local M = {}

M.has_inline_text = vim.fn.has('nvim-0.10') == 1
M.has_lsp_config = vim.fn.has('nvim-0.11') == 1 and vim.lsp.config ~= nil
M.has_long_end = vim.fn.has('nvim-0.10') == 1
M.has_core_client = vim.lsp.inline_completion ~= nil

--- Clients of one name, of one buffer or of all.
---@param name string
---@param bufnr integer|nil
---@return table[]
function M.clients(name, bufnr)
  if vim.lsp.get_clients then
    return vim.lsp.get_clients({ name = name, bufnr = bufnr })
  end
  local found = bufnr and vim.lsp.buf_get_clients(bufnr) or vim.lsp.get_active_clients()
  return vim.tbl_filter(function(client)
    return client.name == name
  end, vim.tbl_values(found))
end

-- A client's functions take the client itself from 0.11 on.
local takes_self = vim.fn.has('nvim-0.11') == 1

---@param client table
---@param name string
local function call(client, name, ...)
  if takes_self then
    return client[name](client, ...)
  end
  return client[name](...)
end

---@param client table
---@param method string
---@param params table
---@param handler fun(err: table|nil, result: any)
---@param bufnr integer
---@return boolean sent, integer|nil id
function M.request(client, method, params, handler, bufnr)
  return call(client, 'request', method, params, handler, bufnr)
end

function M.notify(client, method, params)
  return call(client, 'notify', method, params)
end

function M.cancel(client, id)
  return call(client, 'cancel_request', id)
end

function M.is_stopped(client)
  return call(client, 'is_stopped')
end

---@param force boolean|nil
function M.stop(client, force)
  return call(client, 'stop', force)
end

--- The settings that `workspace/configuration` is answered from.
---@return table
function M.settings(client)
  return client.settings or client.config.settings
end

---@param settings table
function M.set_settings(client, settings)
  client.config.settings = settings
  if client.settings then
    client.settings = settings
  end
end

---@param bufnr integer
---@return integer version of the text that the servers were told last
function M.version(bufnr)
  return vim.lsp.util.buf_versions[bufnr]
end

--- Run a command in the current, empty buffer as a terminal.
---@param command string[]
function M.terminal(command)
  if vim.fn.has('nvim-0.11') == 1 then
    vim.fn.jobstart(command, { term = true })
  else
    vim.fn.termopen(command)
  end
end

return M
