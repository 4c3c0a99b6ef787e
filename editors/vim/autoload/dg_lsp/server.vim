vim9script
# The server's process, the messages to and from it, and the texts that it has been given.

const MARKERS = ['.git', '.dglspignore']

var process: job = null_job
var is_ready = false
var folders: list<string> = []
# By buffer: the number of its listener. The server knows the buffers that are in here.
var listeners: dict<number> = {}
var settings: dict<any> = get(g:, 'dg_lsp_settings', {})->deepcopy()

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

# Returns the request's number, 0 where nothing could be asked.
export def Request(method: string, params: any, Answer: func(any)): number
  if !IsRunning() || !is_ready
    return 0
  endif
  return ch_sendexpr(process, {method: method, params: params}, {
    callback: (_, message) => Answer(get(message, 'result', null))
  })->get('id', 0)
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

export def Document(buffer: number): dict<any>
  return {uri: UriOf(PathOf(buffer))}
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
  status = {state: 'error', message: $'The server ended ({code}).', remedy: ':DgLsp restart brings it back.'}
  OnEnd()
  echomsg $'dg-lsp: {status.message} {status.remedy}'
  redrawstatus!
enddef

def Forget()
  is_ready = false
  for buffer in keys(listeners)
    listener_remove(listeners[buffer])
  endfor
  listeners = {}
enddef

def Initialized(started: job)
  if started != process
    return
  endif
  is_ready = true
  Notify('initialized', {})
  for buffer in getbufinfo({bufloaded: true})
    Open(buffer.bufnr)
  endfor
enddef

export def Start(WithDraft: func(dict<any>), AtEnd: func())
  OnDraft = WithDraft
  OnEnd = AtEnd
  folders = [getcwd()]
  status = {}
  const started = job_start(get(g:, 'dg_lsp_command', ['dg-lsp']), {
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

# One change of whole lines goes as such; of several at once only the outcome is known, and so all goes.
def Changed(buffer: number, first: number, end: number, added: number, changes: list<dict<number>>)
  var content: dict<any> = {text: Text(buffer, 1, '$')}
  if len(changes) == 1
    content = {
      range: {start: {line: first - 1, character: 0}, end: {line: end - 1, character: 0}},
      text: Text(buffer, first, end + added - 1),
    }
  endif
  const version = getbufvar(buffer, 'changedtick')
  Notify('textDocument/didChange', {
    textDocument: Document(buffer)->extend({version: version}),
    contentChanges: [content],
  })
enddef

export def Open(buffer: number)
  const path = PathOf(buffer)
  if !is_ready || has_key(listeners, buffer) || bufname(buffer) == '' || getbufvar(buffer, '&buftype') != ''
    return
  endif
  const folder = FolderOf(path)
  if index(folders, folder) < 0
    add(folders, folder)
    Notify('workspace/didChangeWorkspaceFolders', {event: {added: [Folder(folder)], removed: []}})
  endif
  Notify('textDocument/didOpen', {textDocument: Document(buffer)->extend({
    languageId: getbufvar(buffer, '&filetype'),
    version: getbufvar(buffer, 'changedtick'),
    text: Text(buffer, 1, '$'),
  })})
  listeners[buffer] = listener_add(Changed, buffer)
enddef

export def Close(buffer: number)
  if has_key(listeners, buffer)
    listener_remove(remove(listeners, buffer))
    Notify('textDocument/didClose', {textDocument: Document(buffer)})
  endif
enddef

export def Serves(buffer: number): bool
  return has_key(listeners, buffer)
enddef
