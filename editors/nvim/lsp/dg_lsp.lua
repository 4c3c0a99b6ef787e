---@brief
---
--- dg-lsp: in-line completion from a text-diffusion model on this machine.
---
--- Put this repository's `editors/nvim` on the runtime path, then `vim.lsp.enable('dg_lsp')`. Needs Neovim 0.12 or newer
--- and `dg-lsp` on the PATH (or in `vim.g.dg_lsp_cmd`, a list).

---@type vim.lsp.Config
return {
  cmd = vim.g.dg_lsp_cmd or { 'dg-lsp' },
  root_markers = { '.git' },
  -- Any file may have holes; the server itself knows which languages it has grammars for.
  filetypes = nil,
  settings = { dg = vim.empty_dict() },
}
