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

inoremap <expr> <Plug>(dg-lsp-accept) dg_lsp#Accept('all', "\<Tab>")
inoremap <expr> <Plug>(dg-lsp-accept-word) dg_lsp#Accept('word', "\<M-Right>")
inoremap <expr> <Plug>(dg-lsp-accept-line) dg_lsp#Accept('line', "\<C-M-Right>")
inoremap <Plug>(dg-lsp-dismiss) <Cmd>call dg_lsp#Dismiss()<CR>
inoremap <Plug>(dg-lsp-trigger) <Cmd>call dg_lsp#Trigger()<CR>

# A key that means something already is left alone. Tab and the arrows are themselves where nothing is shown.
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
  autocmd BufReadPost,BufNewFile,FileType,BufEnter * dg_lsp.Open()
  autocmd BufUnload * dg_lsp.Close(expand('<abuf>')->str2nr())
  autocmd InsertEnter,CursorMovedI,TextChangedI,TextChangedP * dg_lsp.Follow()
  autocmd InsertLeave,BufLeave * dg_lsp.Leave()
augroup END
