--- The server's state in a few words for a status line, and in sentences for people who ask.

local client = require('dg_lsp.client')

local M = {}

--- For a status line: empty where dg-lsp does not serve the buffer.
---@param bufnr integer|nil
---@return string
function M.short(bufnr)
  local status = client.status(bufnr or vim.api.nvim_get_current_buf())
  if not status then
    return ''
  end
  local percentage = status.state == 'loading' and status.fraction and (' %d%%'):format(status.fraction * 100) or ''
  return 'dg ' .. status.state .. percentage
end

--- What is known, and what to do about it.
---@param bufnr integer|nil
---@return string
function M.long(bufnr)
  local status = client.status(bufnr or vim.api.nvim_get_current_buf())
  if not status then
    return 'dg-lsp does not serve this buffer. :checkhealth dg_lsp may say why.'
  end
  local sentences = { M.short(bufnr) .. ': ' .. status.message }
  if status.remedy then
    sentences[#sentences + 1] = status.remedy
  end
  if status.model then
    sentences[#sentences + 1] = ('Model: %s.'):format(status.model)
  end
  return table.concat(sentences, ' ')
end

return M
