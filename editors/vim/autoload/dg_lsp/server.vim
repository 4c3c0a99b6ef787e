vim9script
# The server's process, the messages to and from it, and the texts that it has been given.

const STOP_MS = 3000
const MARKERS = ['.git', '.dglspignore']

var process: job = null_job
var is_ready = false
var folders: list<string> = []
# By buffer: what the server knows it by and under which version, and the number of its listener.
var known: dict<dict<any>> = {}
var settings: dict<any> = get(g:, 'dg_lsp_settings', {})->deepcopy()

# When the pause ends that was asked for last, as localtime() has it.
var paused_until = 0

export var status: dict<any> = {}
var OnDraft: func(dict<any>)
var OnEnd: func()

export def IsRunning(): bool
  return process != null_job && job_status(process) == 'run'
enddef

export def Pid(): number
  return IsRunning() ? job_info(process).process : 0
enddef

export def Notify(method: string, params: any)
  if IsRunning()
    ch_sendexpr(process, {method: method, params: params})
  endif
enddef

# Answer gets the whole response. Returns the request's number, 0 where nothing could be asked.
export def Request(method: string, params: any, Answer: func(dict<any>)): number
  if !IsRunning() || !is_ready
    return 0
  endif
  return ch_sendexpr(process, {method: method, params: params}, {
    callback: (_, message) => Answer(message)
  })->get('id', 0)
enddef

export def Execute(command: string, argument: any, Answer: func(dict<any>)): number
  return Request('workspace/executeCommand', {command: command, arguments: [argument]}, Answer)
enddef

# What comes in the place of this server offers nothing unasked for so long either.
export def PauseFor(minutes: number)
  paused_until = localtime() + 60 * minutes
enddef

export def Cancel(number: number)
  if number != 0
    Notify('$/cancelRequest', {id: number})
  endif
enddef

export def UriOf(path: string): string
  var uri = 'file://'
  for at in range(strlen(path))
    const byte = strpart(path, at, 1)
    uri ..= byte =~ '[A-Za-z0-9/._~-]' ? byte : printf('%%%02X', char2nr(byte))
  endfor
  return uri
enddef

def PathOf(buffer: number): string
  return fnamemodify(bufname(buffer), ':p')
enddef

def Name(buffer: number): dict<string>
  return {uri: UriOf(PathOf(buffer)), languageId: getbufvar(buffer, '&filetype')}
enddef

# By the name that was sent: the buffer may have another since.
export def Document(buffer: number): dict<any>
  return {uri: get(known, buffer, {name: Name(buffer)}).name.uri}
enddef

# There is always a folder: rules on what is never read hold within the workspace.
def FolderOf(path: string): string
  const folder = fnamemodify(path, ':h')
  for marker in MARKERS
    var above = folder
    while !isdirectory($'{above}/{marker}') && !filereadable($'{above}/{marker}') && above != fnamemodify(above, ':h')
      above = fnamemodify(above, ':h')
    endwhile
    if isdirectory($'{above}/{marker}') || filereadable($'{above}/{marker}')
      return above
    endif
  endfor
  return stridx($'{folder}/', $'{getcwd()}/') == 0 ? getcwd() : folder
enddef

def Folder(path: string): dict<string>
  return {uri: UriOf(path), name: fnamemodify(path, ':t')}
enddef

def Received(message: dict<any>)
  const method = get(message, 'method', '')
  if method == 'dg/status'
    status = message.params
    redrawstatus!
  elseif method == 'dg/draft'
    OnDraft(message.params)
  elseif has_key(message, 'id') && method != ''
    # Nothing was announced that a server could ask for.
    ch_sendexpr(process, {id: message.id, result: null})
  endif
enddef

def Ended(ended: job, code: number)
  if ended != process
    return
  endif
  Forget()
  Fail($'The server ended ({code}).', ':DgLsp restart brings it back.')
enddef

def Fail(message: string, remedy: string)
  status = {state: 'error', message: message, remedy: remedy}
  OnEnd()
  echomsg $'dg-lsp: {message} {remedy}'
  redrawstatus!
enddef

def Forget()
  is_ready = false
  for buffer in keys(known)
    Close(str2nr(buffer))
  endfor
enddef

def Initialized(started: job)
  if started != process
    return
  endif
  is_ready = true
  Notify('initialized', {})
  const left = paused_until - localtime()
  if left > 0
    Execute('dg.snooze', left / 60.0, (_) => {
    })
  endif
  for buffer in getbufinfo({bufloaded: true})
    Open(buffer.bufnr)
  endfor
enddef

export def Start(WithDraft: func(dict<any>), AtEnd: func())
  OnDraft = WithDraft
  OnEnd = AtEnd
  folders = [getcwd()]
  status = {}
  if &encoding !=# 'utf-8'
    Fail($'Columns cannot be told where ''encoding'' is {&encoding}.', 'Put "set encoding=utf-8" into your vimrc.')
    return
  endif
  const command = get(g:, 'dg_lsp_command', ['dg-lsp'])
  if !executable(command[0])
    Fail('The server was not found.', 'Put dg-lsp on the PATH, then :DgLsp restart.')
    return
  endif
  const started = job_start(command, {
    in_mode: 'lsp',
    out_mode: 'lsp',
    err_io: 'null',
    out_cb: (_, message) => Received(message),
    exit_cb: Ended,
  })
  process = started
  if !IsRunning()
    return
  endif
  ch_sendexpr(started, {method: 'initialize', params: {
    processId: getpid(),
    clientInfo: {name: 'Vim', version: string(v:versionlong)},
    rootUri: UriOf(folders[0]),
    workspaceFolders: folders->mapnew((_, folder) => Folder(folder)),
    initializationOptions: settings,
    capabilities: {
      # Columns are bytes in Vim, too.
      general: {positionEncodings: ['utf-8']},
      textDocument: {inlineCompletion: {dynamicRegistration: false}},
      experimental: {dg: {status: true}},
    },
  }}, {callback: (_, _) => Initialized(started)})
enddef

export def Stop()
  const ending = process
  process = null_job
  Forget()
  if ending != null_job && job_status(ending) == 'run'
    # A channel that closes ends the server.
    ch_close(ending)
    # One that hangs does not notice.
    timer_start(STOP_MS, (_) => job_stop(ending, 'kill'))
  endif
enddef

export def Configure(changes: dict<any>)
  for [name, value] in items(changes)
    if type(value) == v:t_dict && type(get(settings, name, 0)) == v:t_dict
      extend(settings[name], value)
    else
      settings[name] = value
    endif
  endfor
  Notify('workspace/didChangeConfiguration', {settings: {dg: settings}})
enddef

def Text(buffer: number, first: number, last: any): string
  return getbufline(buffer, first, last)->map((_, line) => $"{line}\n")->join('')
enddef

# One change of whole lines goes as such; of several at once only the outcome is known, and so all goes. Of the one line
# that stays where all are deleted Vim does not tell.
def Changed(buffer: number, first: number, end: number, added: number, changes: list<dict<number>>)
  var content: dict<any> = {text: Text(buffer, 1, '$')}
  const count = getbufinfo(buffer)[0].linecount
  if len(changes) == 1 && count > 1 && count == known[buffer].count + added
    content = {
      range: {start: {line: first - 1, character: 0}, end: {line: end - 1, character: 0}},
      text: Text(buffer, first, end + added - 1),
    }
  endif
  const version = getbufvar(buffer, 'changedtick')
  known[buffer].version = version
  known[buffer].count = count
  Notify('textDocument/didChange', {
    textDocument: Document(buffer)->extend({version: version}),
    contentChanges: [content],
  })
enddef

# Also where the name or the language is another than what was sent.
export def Open(buffer: number)
  const name = Name(buffer)
  if get(known, buffer, {name: name}).name != name
    Close(buffer)
  endif
  if !is_ready || Serves(buffer) || !bufloaded(buffer) || bufname(buffer) == '' || getbufvar(buffer, '&buftype') != ''
    return
  endif
  const folder = FolderOf(PathOf(buffer))
  if index(folders, folder) < 0
    add(folders, folder)
    Notify('workspace/didChangeWorkspaceFolders', {event: {added: [Folder(folder)], removed: []}})
  endif
  Notify('textDocument/didOpen', {textDocument: name->copy()->extend({
    version: getbufvar(buffer, 'changedtick'),
    text: Text(buffer, 1, '$'),
  })})
  known[buffer] = {
    name: name,
    version: getbufvar(buffer, 'changedtick'),
    count: getbufinfo(buffer)[0].linecount,
    listener: listener_add(Changed, buffer),
  }
enddef

export def Close(buffer: number)
  if Serves(buffer)
    # What is not told now would be told of the text that is opened next.
    listener_flush(buffer)
    const closed = Document(buffer)
    listener_remove(remove(known, buffer).listener)
    Notify('textDocument/didClose', {textDocument: closed})
  endif
enddef

# Of the text as it is now. Saving is no edit, although it raises 'changedtick'.
export def Version(buffer: number): number
  listener_flush(buffer)
  return get(known, buffer, {version: 0}).version
enddef

export def Serves(buffer: number): bool
  return has_key(known, buffer)
enddef
