vim9script
# Insert mode, keys and commands over the server and what is shown.

import autoload './dg_lsp/ghost.vim'
import autoload './dg_lsp/server.vim'

const AUTOMATIC = 2
const INVOKED = 1
const SNOOZE_MINUTES = 30

# The place that was asked about last, and the number of that request while it runs.
var last: list<number> = []
var running = 0

def Place(): list<number>
  return [bufnr(), server.Version(bufnr()), line('.'), col('.')]
enddef

export def Open(buffer: number)
  if !server.IsRunning()
    if !empty(server.status) || bufname(buffer) == '' || getbufvar(buffer, '&buftype') != ''
      # A server that has ended is not started again unasked.
      return
    endif
    server.Start(Drafted, Leave)
  endif
  server.Open(buffer)
enddef

# What Vim reads again from the disk it tells no listener of.
export def Reopen(buffer: number)
  Close(buffer)
  Open(buffer)
enddef

export def Close(buffer: number)
  server.Close(buffer)
enddef

def Cancel()
  server.Cancel(running)
  running = 0
  ghost.ClearDraft()
enddef

export def Leave()
  last = []
  Cancel()
  ghost.Clear()
enddef

# CTRL-C leaves Insert mode, and the Insert key goes to Replace mode, without an event that tells of it.
export def LeaveUnlessInserting()
  if !empty(last) && mode() !~ '^i'
    Leave()
  endif
enddef

def Answered(place: list<number>, id: number, result: any)
  if id != running
    return
  endif
  running = 0
  ghost.ClearDraft()
  if place != Place() || mode() !~ '^i'
    return
  endif
  const items = type(result) == v:t_dict ? result.items : []
  if empty(items)
    ghost.Clear()
  else
    ghost.Offer(items)
  endif
enddef

def Ask(kind: number)
  Cancel()
  # This tells the server of the text before it is asked about it.
  const place = Place()
  last = place
  running = server.Request('textDocument/inlineCompletion', {
    textDocument: server.Document(bufnr()),
    position: {line: line('.') - 1, character: col('.') - 1},
    context: {triggerKind: kind},
  }, (message) => Answered(place, message.id, get(message, 'result', null)))
enddef

# Several events tell of one key: only another place is news.
export def Follow()
  if !server.Serves(bufnr()) || Place() == last
    return
  endif
  ghost.Refresh()
  if pumvisible() && complete_info(['selected']).selected != -1
    Leave()
  else
    Ask(AUTOMATIC)
  endif
enddef

def Drafted(note: dict<any>)
  if running != 0 && last == Place() && note.textDocument.version == last[1]
      && note.textDocument.uri == server.Document(bufnr()).uri
    ghost.Draft(note.pieces->mapnew((_, piece) => piece.text)->join(''))
  endif
enddef

# White space and a run of word characters or of others, all beyond ASCII counting as letters; what is left of a line, or
# the next line.
const WORD = '\_s*\%(\%([[:alnum:]_]\|[^\x01-\x7f]\)\+\|[\x21-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7e]*\)'
const HEADS = {all: '.*', word: WORD, line: '\n\?[^\n]*'}

# The keys that accept: undo breaks before and after, so that it is one step. The key itself where nothing is shown.
export def Accept(unit: string, key: string): string
  if ghost.Rest() == '' || ghost.IsDraft()
    return key
  endif
  return $"\<C-G>u\<Cmd>call dg_lsp#Take('{unit}')\<CR>\<C-G>u"
enddef

export def Take(unit: string)
  const rest = ghost.Rest()
  if rest != ''
    ghost.Take(unit == 'all' ? rest : matchstr(rest, '^' .. HEADS[unit]))
  endif
enddef

# Undo brings back what was drawn in the lines that it brings back.
export def Sweep()
  ghost.Sweep()
enddef

export def Hide()
  Cancel()
  ghost.Clear()
enddef

# The key that hides what is shown, and what may still come. The key itself where nothing is shown.
export def Dismiss(key: string): string
  return "\<Cmd>call dg_lsp#Hide()\<CR>" .. (ghost.IsShown() ? '' : key)
enddef

# Where several are offered already it shows the next.
export def Trigger()
  if !ghost.Next()
    Ask(INVOKED)
  endif
enddef

# For a status line: empty where no server runs.
export def Status(): string
  const state = get(server.status, 'state', '')
  const fraction = get(server.status, 'fraction', null)
  return state == '' ? '' : $'dg {state}' .. (fraction == null ? '' : $' {float2nr(fraction * 100)}%')
enddef

# Run a command of the server; what it says against it, or why none runs, is told.
def Execute(command: string, argument: any, Tell: func(any))
  const sent = server.Execute(command, argument, (message) => {
    if has_key(message, 'error')
      Say(message.error.message)
    else
      Tell(message.result)
    endif
  })
  if sent == 0
    TellStatus()
  endif
enddef

def Explain()
  Execute('dg.explain', server.Document(bufnr()).uri, (result) => Say($'{result.state}. {result.reason}'))
enddef

def Snooze(minutes: number)
  Execute('dg.snooze', minutes, (_) => {
    server.PauseFor(minutes)
    Say(minutes == 0 ? 'the pause is over' : $'no automatic completions for {minutes} minutes')
  })
enddef

export def Configure(settings: dict<any>)
  server.Configure(settings)
enddef

export def Serves(): bool
  return server.Serves(bufnr())
enddef

def Restart()
  Leave()
  server.Stop()
  server.Start(Drafted, Leave)
enddef

def Say(text: string)
  echomsg $'dg-lsp: {text}'
enddef

def TellStatus()
  var sentences = [get(server.status, 'message', 'No server runs.'), get(server.status, 'remedy', '')]
  Say(sentences->filter((_, sentence) => type(sentence) == v:t_string)->join(' '))
enddef

const SUBCOMMANDS = {
  enable: (_) => server.Configure({enabled: true}),
  disable: (_) => server.Configure({enabled: false}),
  drafts: (argument) => server.Configure({drafts: argument != 'off'}),
  explain: (_) => Explain(),
  restart: (_) => Restart(),
  snooze: (argument) => Snooze(argument == '' ? SNOOZE_MINUTES : str2nr(argument)),
  status: (_) => TellStatus(),
}

export def Complete(lead: string, line: string, position: number): string
  return SUBCOMMANDS->keys()->sort()->join("\n")
enddef

export def Command(name: string = 'status', argument: string = '')
  if has_key(SUBCOMMANDS, name)
    SUBCOMMANDS[name](argument)
  else
    echohl ErrorMsg
    Say($'{name} is not a subcommand; there are: {SUBCOMMANDS->keys()->sort()->join(', ')}')
    echohl None
  endif
enddef
