vim9script
# In-line completion by dg-lsp. Needs Vim 9.0.0185 (inline virtual text), +job, +channel and +textprop.

if exists('g:loaded_dg_lsp')
  finish
endif
g:loaded_dg_lsp = true

if !has('patch-9.0.0185') || !has('job') || !has('textprop')
  finish
endif

import autoload 'dg_lsp.vim'

# A type of text property has to find its highlight group defined, or Vim waits at "Press ENTER".
highlight default link DgLspGhost NonText
highlight default link DgLspDraft LineNr

command! -nargs=* -complete=custom,dg_lsp.Complete DgLsp dg_lsp.Command(<f-args>)

# Of keys that are mapped only CTRL-] expands abbreviations.
inoremap <expr> <Plug>(dg-lsp-accept) dg_lsp#Accept('all', "\<C-]>\<Tab>")
inoremap <expr> <Plug>(dg-lsp-accept-word) dg_lsp#Accept('word', "\<M-Right>")
inoremap <expr> <Plug>(dg-lsp-accept-line) dg_lsp#Accept('line', "\<C-M-Right>")
inoremap <expr> <Plug>(dg-lsp-dismiss) dg_lsp#Dismiss("\<C-]>")
inoremap <Plug>(dg-lsp-trigger) <Cmd>call dg_lsp#Trigger()<CR>

# A key that means something already is left alone. All but the last are themselves where nothing is shown.
def Map(key: string, target: string)
  if !hasmapto(target, 'i') && maparg(key, 'i') == ''
    execute $'imap {key} {target}'
  endif
enddef

if get(g:, 'dg_lsp_keys', true)
  Map('<Tab>', '<Plug>(dg-lsp-accept)')
  Map('<M-Right>', '<Plug>(dg-lsp-accept-word)')
  Map('<M-C-Right>', '<Plug>(dg-lsp-accept-line)')
  Map('<C-]>', '<Plug>(dg-lsp-dismiss)')
  Map('<C-X><C-G>', '<Plug>(dg-lsp-trigger)')
endif

augroup dg_lsp
  autocmd!
  autocmd BufReadPost,BufNewFile,BufFilePost,FileType,BufEnter * dg_lsp.Open(expand('<abuf>')->str2nr())
  autocmd FileChangedShellPost * dg_lsp.Reopen(expand('<abuf>')->str2nr())
  autocmd BufUnload * dg_lsp.Close(expand('<abuf>')->str2nr())
  autocmd InsertEnter,CursorMovedI,TextChangedI,TextChangedP * dg_lsp.Follow()
  autocmd InsertLeave,BufLeave * dg_lsp.Leave()
  autocmd SafeState * dg_lsp.LeaveUnlessInserting()
  autocmd TextChanged * dg_lsp.Sweep()
  # They have a name before they are known to be no files.
  autocmd OptionSet buftype dg_lsp.Close(bufnr())
  if exists('##TerminalOpen')
    autocmd TerminalOpen * dg_lsp.Close(expand('<abuf>')->str2nr())
  endif
augroup END
