-- Turns ghost text on where dg-lsp is attached, and gives it keys unless `vim.g.dg_lsp_keys` is false.
--   <Tab> accepts; where nothing is shown it is the key it was before.

if vim.fn.has('nvim-0.12') == 0 then
  vim.notify_once('dg-lsp needs Neovim 0.12 or newer', vim.log.levels.WARN)
  return
end

local group = vim.api.nvim_create_augroup('dg_lsp', { clear = true })

vim.api.nvim_create_autocmd('LspAttach', {
  group = group,
  desc = 'Show in-line completions of dg-lsp',
  callback = function(event)
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if not client or client.name ~= 'dg_lsp' then
      return
    end
    vim.lsp.inline_completion.enable(true, { bufnr = event.buf, client_id = client.id })
    if vim.g.dg_lsp_keys == false then
      return
    end
    vim.keymap.set('i', '<Tab>', function()
      return vim.lsp.inline_completion.get({ bufnr = event.buf }) and '' or '<Tab>'
    end, { buffer = event.buf, expr = true, desc = 'Accept the in-line completion, or Tab' })
  end,
})
