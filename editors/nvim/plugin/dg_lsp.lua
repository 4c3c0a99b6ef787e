if vim.g.loaded_dg_lsp then
  return
end
vim.g.loaded_dg_lsp = true

if vim.fn.has('nvim-0.7') == 0 then
  vim.notify_once('dg-lsp needs Neovim 0.7 or newer', vim.log.levels.WARN)
  return
end

local function highlight()
  local hint = vim.fn.hlexists('ComplHint') == 1 and 'ComplHint' or 'NonText'
  local id = vim.fn.synIDtrans(vim.fn.hlID(hint))
  if not vim.o.termguicolors and vim.fn.synIDattr(id, 'fg', 'cterm') == '' then
    -- 0.12's own colours have none for hints in a terminal of 16, where ghost text would look like text.
    vim.api.nvim_set_hl(0, 'DgLspGhost', { default = true, ctermfg = 8 })
  else
    vim.api.nvim_set_hl(0, 'DgLspGhost', { default = true, link = hint })
  end
  vim.api.nvim_set_hl(0, 'DgLspDraftSettled', { default = true, link = 'DgLspGhost' })
  vim.api.nvim_set_hl(0, 'DgLspDraft', { default = true, link = 'LineNr' })
end

highlight()
vim.api.nvim_create_autocmd('ColorScheme', {
  group = vim.api.nvim_create_augroup('dg_lsp_highlight', { clear = true }),
  desc = 'Colours of dg-lsp',
  callback = highlight,
})

vim.api.nvim_create_user_command('DgLsp', function(command)
  require('dg_lsp.commands').run(command.fargs)
end, {
  nargs = '*',
  desc = 'In-line completion by dg-lsp',
  complete = function(lead, line)
    return require('dg_lsp.commands').complete(lead, line)
  end,
})

-- After init.lua and all plugins, so that `setup()` comes first wherever it is called.
if vim.v.vim_did_enter == 1 then
  vim.schedule(function()
    require('dg_lsp.attach').start()
  end)
else
  vim.api.nvim_create_autocmd('VimEnter', {
    once = true,
    desc = 'Serve files by dg-lsp',
    callback = function()
      require('dg_lsp.attach').start()
    end,
  })
end
