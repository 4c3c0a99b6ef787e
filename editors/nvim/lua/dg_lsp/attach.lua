--- What a served buffer gets: keys, and who shows ghost text in it.

local client = require('dg_lsp.client')
local config = require('dg_lsp.config')
local document = require('dg_lsp.document')
local insert = require('dg_lsp.insert')
local keys = require('dg_lsp.keys')

local M = {}

---@return boolean
local function is_core()
  return config.get().display == 'core' and vim.lsp.inline_completion ~= nil
end

--- Accept what is shown. Neovim's own client knows no words and lines.
---@param unit 'all'|'word'|'line'
---@return boolean accepted
function M.accept(unit)
  if is_core() then
    return unit == 'all' and vim.lsp.inline_completion.get()
  end
  return insert.accept(unit)
end

--- Ask now. Neovim's own client cannot.
---@return boolean asked
function M.trigger()
  return not is_core() and insert.trigger()
end

local actions = {
  accept = function()
    return M.accept('all')
  end,
  accept_word = function()
    return M.accept('word')
  end,
  accept_line = function()
    return M.accept('line')
  end,
  dismiss = insert.dismiss,
  trigger = M.trigger,
}

---@param bufnr integer
---@param id integer the client's
local function on_attach(bufnr, id)
  document.opened(bufnr)
  if vim.lsp.inline_completion then
    -- Two clients would show one offer twice.
    vim.lsp.inline_completion.enable(is_core(), { bufnr = is_core() and bufnr or nil, client_id = id })
  end
  keys.map(bufnr, actions)
  if not is_core() then
    insert.resume(bufnr)
  end
end

local function on_lsp_attach(event)
  local attached = vim.lsp.get_client_by_id(event.data.client_id)
  if attached and attached.name == client.NAME then
    on_attach(event.buf, attached.id)
  end
end

--- Begin to serve what is, or will be, attached.
function M.start()
  client.on_attach = on_attach
  if vim.fn.exists('##LspAttach') == 1 then
    vim.api.nvim_create_autocmd('LspAttach', {
      group = vim.api.nvim_create_augroup('dg_lsp', { clear = true }),
      desc = 'Show in-line completions of dg-lsp',
      callback = on_lsp_attach,
    })
  end
  if not is_core() then
    insert.start()
  end
  client.define()
  if config.get().auto_attach then
    client.enable()
  end
end

return M
