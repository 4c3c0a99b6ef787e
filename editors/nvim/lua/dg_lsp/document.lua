--- By which name and language servers know a buffer: Neovim tells of others when the file is written, if at all.

local compat = require('dg_lsp.compat')

local M = {}

local LINE_ENDS = { unix = '\n', dos = '\r\n', mac = '\r' }

---@class dg_lsp.Name
---@field uri string
---@field languageId string

---@type table<integer, dg_lsp.Name> by buffer, as it was sent
local names = {}

---@param bufnr integer
---@return dg_lsp.Name
local function name_of(bufnr)
  return { uri = vim.uri_from_bufnr(bufnr), languageId = vim.bo[bufnr].filetype }
end

---@param bufnr integer
---@return string
local function text_of(bufnr)
  local line_end = LINE_ENDS[vim.bo[bufnr].fileformat]
  local text = table.concat(vim.api.nvim_buf_get_lines(bufnr, 0, -1, true), line_end)
  return vim.bo[bufnr].endofline and text .. line_end or text
end

--- A buffer has been attached.
---@param bufnr integer
function M.opened(bufnr)
  names[bufnr] = name_of(bufnr)
end

--- Close an attached buffer and open it again, if its name or language is another than what was sent.
---@param client table
---@param bufnr integer
function M.follow(client, bufnr)
  local sent, name = names[bufnr], name_of(bufnr)
  if not sent or vim.deep_equal(sent, name) then
    return
  end
  names[bufnr] = name
  compat.notify(client, 'textDocument/didClose', { textDocument = { uri = sent.uri } })
  local document = vim.tbl_extend('error', name, { version = compat.version(bufnr), text = text_of(bufnr) })
  compat.notify(client, 'textDocument/didOpen', { textDocument = document })
end

return M
