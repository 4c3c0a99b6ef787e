---@brief
---
--- dg-lsp: in-line completion from a text-diffusion model on this machine. Needs Neovim 0.12 and `dg-lsp` on the PATH.
---
--- This file works by itself: `vim.lsp.enable('dg_lsp')` shows ghost text with Neovim's own client, and
--- `vim.lsp.inline_completion.get()` accepts it. With the plugin beside it, the plugin shows it.

---@type vim.lsp.Config
return {
  cmd = { 'dg-lsp' },
  -- Any file may have holes; the server itself knows which languages it has grammars for.
  root_markers = { '.git', '.dglspignore' },
  on_attach = function(client, bufnr)
    if not vim.g.loaded_dg_lsp and vim.lsp.inline_completion then
      vim.lsp.inline_completion.enable(true, { bufnr = bufnr, client_id = client.id })
    end
  end,
}
