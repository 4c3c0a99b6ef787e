vim9script
# What is shown for the cursor, as virtual text, and whether it still fits what stands there.

const GHOST = 'dg_lsp_ghost'
const DRAFT = 'dg_lsp_draft'

prop_type_add(GHOST, {highlight: 'DgLspGhost'})
prop_type_add(DRAFT, {highlight: 'DgLspDraft'})

# buffer, lnum, col: where the text begins, columns in bytes from 0. count: the lines of the buffer then. before, tail,
# after: the line left of that, right of the cursor and replaced, and behind.
var shown: dict<any> = {}
# Items of the server: the one that is shown, and what may be meant instead.
var offers: list<dict<any>> = []

# What has been typed since, null where anything else is not as it was.
def Typed(): any
  const [_, lnum, col, _, _] = getcurpos()
  if bufnr() != shown.buffer || lnum < shown.lnum || (lnum == shown.lnum && col - 1 < shown.col)
    return null
  endif
  if strpart(getline(shown.lnum), 0, shown.col) != shown.before
      || strpart(getline('.'), col - 1) != shown.tail .. shown.after
      || line('$') - shown.count != lnum - shown.lnum
    return null
  endif
  var lines = getline(shown.lnum, lnum)
  lines[-1] = strpart(lines[-1], 0, col - 1)
  lines[0] = strpart(lines[0], shown.col)
  return join(lines, "\n")
enddef

# What is still to come behind the cursor; empty where nothing is shown, or not for this text.
export def Rest(): string
  if empty(shown)
    return ''
  endif
  const typed = Typed()
  return typed != null && stridx(shown.text, typed) == 0 ? strpart(shown.text, strlen(typed)) : ''
enddef

export def IsDraft(): bool
  return !empty(shown) && shown.type == DRAFT
enddef

export def IsShown(): bool
  return !empty(shown)
enddef

# What is drawn, for tests: virtual text cannot be read back.
export def Drawn(): list<string>
  return empty(shown) ? ['', ''] : [shown.type, shown.drawn]
enddef

# Virtual text has no tabs: blanks up to where each would end, from a screen column of the line, counted from 0.
def Blanks(text: string, from: number): string
  var drawn = ''
  for part in split(text, '\t\zs')
    const words = substitute(part, '\t$', '', '')
    drawn ..= words
    if words != part
      drawn ..= repeat(' ', strdisplaywidth("\t", from + strdisplaywidth(drawn, from)))
    endif
  endfor
  return drawn
enddef

# Returns the screen column behind it.
def Put(col: number, text: string, from: number): number
  if text == ''
    return from
  endif
  const drawn = Blanks(text, from)
  prop_add(line('.'), col, {type: shown.type, text: drawn})
  return from + strdisplaywidth(drawn, from)
enddef

# Vim leaves lines on the screen as they were where others come or go between them; all of a window is drawn anew where
# an option of its own is set.
def RedrawAll(buffer: number)
  for window in win_findbuf(buffer)
    setwinvar(window, '&list', getwinvar(window, '&list'))
  endfor
enddef

def RedrawBelow()
  if stridx(shown.drawn, "\n") >= 0
    RedrawAll(shown.buffer)
  endif
enddef

def Undraw()
  if !empty(shown) && bufexists(shown.buffer)
    prop_remove({types: [GHOST, DRAFT], bufnr: shown.buffer, all: true})
    RedrawBelow()
  endif
enddef

# Where nothing is shown nothing is to be drawn.
export def Sweep()
  if empty(shown) && prop_remove({types: [GHOST, DRAFT], all: true}) > 0
    RedrawAll(bufnr())
  endif
enddef

# What of `text` comes before each character of `tail`, and behind the last one.
def Around(text: string, tail: list<string>): list<string>
  var pieces: list<string> = []
  var left = text
  for character in tail->copy()->reverse()
    const at = strridx(left, character)
    insert(pieces, at < 0 ? '' : strpart(left, at + strlen(character)))
    left = at < 0 ? left : strpart(left, 0, at)
  endfor
  return insert(pieces, left)
enddef

# The characters of the tail are drawn as the text that they are, amid what is not there yet.
def Draw(rest: string)
  const [first; below] = split(rest, "\n", true)
  const tail = split(shown.tail, '\zs')
  const pieces = Around(first, tail)
  var col = col('.')
  var screen = strdisplaywidth(strpart(getline('.'), 0, col - 1))
  for [at, piece] in items(pieces)
    screen = Put(col, piece, screen) + strdisplaywidth(get(tail, at, ''))
    col += strlen(get(tail, at, ''))
  endfor
  for text in below
    prop_add(line('.'), 0, {type: shown.type, text: text == '' ? ' ' : Blanks(text, 0), text_align: 'below'})
  endfor
  shown.drawn = join([join(pieces, '')] + below, "\n")
  RedrawBelow()
enddef

export def Clear()
  Undraw()
  shown = {}
  offers = []
enddef

# Draw what fits now, or hide it.
export def Refresh()
  const rest = Rest()
  if rest == '' || (IsDraft() && rest != shown.text)
    Clear()
  else
    Undraw()
    Draw(rest)
  endif
enddef

def Show(type: string, text: string, from: number, till: number)
  Clear()
  const line = getline('.')
  const at = col('.') - 1
  shown = {
    type: type, buffer: bufnr(), lnum: line('.'), col: from, count: line('$'), text: text, drawn: '',
    before: strpart(line, 0, from), tail: strpart(line, at, till - at), after: strpart(line, till),
  }
  Refresh()
enddef

# The first of several items, or the one behind that which is shown already.
export def Offer(items: list<dict<any>>)
  const at = items->mapnew((_, item) => item.insertText)->index(Rest())
  const wanted = at < 0 ? items : items[at + 1 :] + items[: at]
  const range = wanted[0].range
  Show(GHOST, wanted[0].insertText, range.start.character, range.end.character)
  offers = wanted
enddef

# The next of several, behind the last one the first again; whether there is one for this text.
export def Next(): bool
  if len(offers) < 2 || Rest() == '' || Typed() != ''
    return false
  endif
  Offer(offers)
  return true
enddef

export def Draft(text: string)
  if Rest() == '' || IsDraft()
    Show(DRAFT, text, col('.') - 1, col('.') - 1)
  endif
enddef

export def ClearDraft()
  if IsDraft()
    Clear()
  endif
enddef

# Put `head` of what is shown into the buffer, and the cursor behind it; the end of all replaces the tail.
export def Take(head: string)
  const lines = split(head, "\n", true)
  const replaced = head == Rest() ? strlen(shown.tail) : 0
  const before = strpart(getline('.'), 0, col('.') - 1)
  const after = strpart(getline('.'), col('.') - 1 + replaced)
  const lnum = line('.')
  var new = lines->copy()
  new[0] = before .. new[0]
  const column = strlen(new[-1]) + 1
  new[-1] ..= after
  setline(lnum, new[0])
  append(lnum, new[1 :])
  cursor(lnum + len(new) - 1, column)
  execute $'silent! :{lnum},{lnum + len(new) - 1}foldopen!'
  Refresh()
enddef
