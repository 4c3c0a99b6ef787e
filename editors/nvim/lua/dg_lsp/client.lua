--- The language client: started for files, configured, restarted, and what the server tells of itself.

local compat = require('dg_lsp.compat')
local config = require('dg_lsp.config')
local document = require('dg_lsp.document')
local root = require('dg_lsp.root')

local M = {}

M.NAME = 'dg_lsp'
local LOG_LINES = 1000
local STOP_MS = 3000
local WARN = vim.log.levels.WARN

---@class dg_lsp.Status
---@field state 'idle'|'loading'|'ready'|'working'|'snoozed'|'off'|'error'|'stopped'
---@field message string
---@field fraction number|nil
---@field remedy string|nil
---@field model string|nil

---@type table<integer, dg_lsp.Status> by client
local statuses = {}
---@type dg_lsp.Status|nil
local ended
---@type string[]
local log = {}
---@type table<integer, true> clients that are meant to end
local dismissed = {}
--- When the pause ends that was asked for last, as `os.time()` has it.
local paused_until = 0

--- Called with each draft.
---@type fun(note: table)
M.on_draft = function() end

--- Called for each buffer that is attached, where Neovim has no event for it (0.7).
---@type fun(bufnr: integer, id: integer)
M.on_attach = function() end

--- Called when a server has ended.
M.on_end = function() end

local function changed()
  vim.api.nvim_exec_autocmds('User', { pattern = 'DgLspStatus', modeline = false })
  vim.cmd('redrawstatus!')
end

--- Without what is not set: an empty table would go over the wire as a list.
---@param settings table<string, any>
---@return table<string, any>
local function given(settings)
  local kept = vim.empty_dict()
  for name, value in pairs(settings) do
    if type(value) ~= 'table' then
      kept[name] = value
    elseif not vim.tbl_isempty(value) then
      kept[name] = value[1] ~= nil and value or given(value)
    end
  end
  return kept
end

---@param client table
---@param command string
---@param arguments any[]
---@param done fun(result: any)
---@return boolean sent
local function execute(client, command, arguments, done)
  local params = { command = command, arguments = arguments }
  return (
    compat.request(client, 'workspace/executeCommand', params, function(problem, result)
      if problem then
        vim.notify('dg-lsp: ' .. problem.message, WARN)
      else
        done(result)
      end
    end, vim.api.nvim_get_current_buf())
  )
end

--- Let a server that has just come take part in the pause.
---@param client_id integer
local function pause_too(client_id)
  local minutes = (paused_until - os.time()) / 60
  local client = vim.lsp.get_client_by_id(client_id)
  if minutes > 0 and client then
    execute(client, 'dg.snooze', { minutes }, function() end)
  end
end

local handlers = {
  ['dg/status'] = function(_, status, context)
    for name, value in pairs(status) do
      if value == vim.NIL then
        status[name] = nil
      end
    end
    if not statuses[context.client_id] then
      pause_too(context.client_id)
    end
    statuses[context.client_id] = status
    changed()
  end,
  ['dg/draft'] = function(_, note)
    M.on_draft(note)
  end,
  ['window/logMessage'] = function(_, message)
    for _, line in ipairs(vim.split(message.message, '\n', { plain = true })) do
      log[#log + 1] = os.date('%H:%M:%S ') .. line
    end
    while #log > LOG_LINES do
      table.remove(log, 1)
    end
  end,
}

local REMEDY = ':DgLsp restart brings it back.'

local on_exit = vim.schedule_wrap(function(_, _, client_id)
  statuses[client_id] = nil
  if not dismissed[client_id] then
    ended = { state = 'error', message = 'The server ended.', remedy = REMEDY }
  end
  dismissed[client_id] = nil
  M.on_end()
  changed()
end)

--- The server's command as a function that starts it.
---
--- Neovim's own words on the end of a server name a log file; they are wider than most screens, and so stop the user
--- with "Press ENTER".
---@param command string[]
---@return fun(dispatchers: table): table
local function start_quietly(command)
  return function(dispatchers)
    local pass_on = dispatchers.on_exit
    dispatchers.on_exit = function(code, signal)
      pass_on(0, 0)
      if code ~= 0 or signal ~= 0 then
        vim.schedule(function()
          vim.notify(('dg-lsp: the server ended (status %d, signal %d). %s'):format(code, signal, REMEDY), WARN)
        end)
      end
    end
    return vim.lsp.rpc.start(command, dispatchers)
  end
end

---@type string[]|nil a command that the user gave to `vim.lsp.config`
local command_of_core

--- The command that starts the server.
---@return string[]
function M.command()
  local chosen = config.get().cmd
  if not compat.has_lsp_config or not vim.deep_equal(chosen, config.defaults.cmd) then
    return chosen
  end
  local known = vim.lsp.config[M.NAME]
  if known and type(known.cmd) == 'table' then
    command_of_core = known.cmd
  end
  return command_of_core or chosen
end

---@type nil|fun(params: table, client: table) what the user gave to `vim.lsp.config`
local before_init_of_core

--- Settings that are fetched come after the first file: the engine would start with another model first.
local function before_init(params, client)
  params.initializationOptions = client.settings.dg
  if before_init_of_core then
    before_init_of_core(params, client)
  end
end

--- What distinguishes this client from any other, for `vim.lsp.config` and for `vim.lsp.start` alike.
---@return table
local function client_config()
  local capabilities = {
    textDocument = { inlineCompletion = { dynamicRegistration = false } },
    experimental = { dg = { status = true } },
  }
  local chosen = config.get()
  return {
    cmd = compat.has_long_end and start_quietly(M.command()) or chosen.cmd,
    capabilities = vim.tbl_deep_extend('force', vim.lsp.protocol.make_client_capabilities(), capabilities),
    settings = { dg = given(chosen.settings) },
    handlers = handlers,
    before_init = before_init,
    on_exit = on_exit,
  }
end

---@param bufnr integer
---@return boolean
local function is_file(bufnr)
  return vim.bo[bufnr].buftype == '' and vim.api.nvim_buf_get_name(bufnr) ~= '' and vim.api.nvim_buf_is_loaded(bufnr)
end

---@type table<string, integer> by root: the last client that was started, in versions without `vim.lsp.start`
local by_root = {}

--- Attach the client of a root, started if need be. A client that starts can be told of only by its identifier.
---@param bufnr integer
---@param started table
local function start_by_root(bufnr, started)
  local folder = started.root_dir
  local known = by_root[folder] and vim.lsp.get_client_by_id(by_root[folder])
  if not known or compat.is_stopped(known) then
    started.on_attach = function(client, buffer)
      M.on_attach(buffer, client.id)
    end
    by_root[folder] = vim.lsp.start_client(started)
  end
  if by_root[folder] then
    vim.lsp.buf_attach_client(bufnr, by_root[folder])
  end
end

--- Serve a buffer, in versions without `vim.lsp.enable`.
---@param bufnr integer
local function attach(bufnr)
  if not is_file(bufnr) or M.of(bufnr) then
    return
  end
  local started = vim.tbl_extend('force', client_config(), {
    name = M.NAME,
    root_dir = root.of(vim.api.nvim_buf_get_name(bufnr)),
  })
  if vim.lsp.start then
    vim.lsp.start(started, { bufnr = bufnr })
    return
  end
  start_by_root(bufnr, started)
end

--- The client that serves a buffer.
---@param bufnr integer
---@return table|nil
function M.of(bufnr)
  for _, client in ipairs(compat.clients(M.NAME, bufnr)) do
    if not compat.is_stopped(client) then
      return client
    end
  end
end

---@param bufnr integer
---@param found fun(folder: string)
local function root_dir(bufnr, found)
  if is_file(bufnr) then
    found(root.of(vim.api.nvim_buf_get_name(bufnr)))
  end
end

--- Tell Neovim of the server, so that `vim.lsp.enable('dg_lsp')` brings this client (0.11 and newer). Which folder it
--- serves is the user's choice first.
function M.define()
  if compat.has_lsp_config then
    local known, defined = vim.lsp.config[M.NAME], client_config()
    if known.before_init ~= before_init then
      before_init_of_core = known.before_init
    end
    if not known.root_dir and vim.deep_equal(known.root_markers, root.MARKERS) then
      defined.root_dir = root_dir
    end
    vim.lsp.config(M.NAME, defined)
  end
end

--- Serve a file, or tell its server of its name and language.
---@param bufnr integer
local function serve(bufnr)
  local client = M.of(bufnr)
  if client then
    document.follow(client, bufnr)
  elseif not compat.has_lsp_config then
    attach(bufnr)
  elseif vim.bo[bufnr].filetype == '' and is_file(bufnr) then
    -- Neovim looks at a file when it has a type.
    vim.api.nvim_exec_autocmds('FileType', { group = 'nvim.lsp.enable', buffer = bufnr, modeline = false })
  end
end

--- Whether there is a server to start; that there is none is told.
---@return boolean
local function is_installed()
  if vim.fn.executable(M.command()[1]) == 1 then
    return true
  end
  ended = { state = 'error', message = 'The server was not found.', remedy = 'See :checkhealth dg_lsp.' }
  vim.notify(('dg-lsp: %s %s'):format(ended.message, ended.remedy), WARN)
  changed()
  return false
end

--- Serve all files from now on.
function M.enable()
  ended = nil
  if not is_installed() then
    return
  end
  if compat.has_lsp_config then
    vim.lsp.enable(M.NAME)
  end
  -- A file without a type has only the last two; modelines come before them.
  vim.api.nvim_create_autocmd({ 'FileType', 'BufFilePost', 'BufWinEnter' }, {
    group = vim.api.nvim_create_augroup('dg_lsp_attach', { clear = true }),
    desc = 'Serve files by dg-lsp',
    -- What becomes a terminal or a plugin's page has a name before it is known to be no file.
    callback = vim.schedule_wrap(function(event)
      if vim.api.nvim_buf_is_valid(event.buf) then
        serve(event.buf)
      end
    end),
  })
  vim.tbl_map(serve, vim.tbl_filter(vim.api.nvim_buf_is_loaded, vim.api.nvim_list_bufs()))
end

--- Call `done` when all clients have ended.
---@param done fun()
local function stop(done)
  local clients = compat.clients(M.NAME)
  for _, client in ipairs(clients) do
    dismissed[client.id] = true
    compat.stop(client)
  end
  local deadline = vim.loop.now() + STOP_MS
  local function look()
    clients = vim.tbl_filter(function(client)
      return not compat.is_stopped(client)
    end, clients)
    if #clients == 0 then
      return done()
    end
    if vim.loop.now() > deadline then
      vim.tbl_map(function(client)
        compat.stop(client, true)
      end, clients)
    end
    vim.defer_fn(look, 20)
  end
  look()
end

--- End the server and start it again, also one that has died.
function M.restart()
  stop(M.enable)
end

--- Change settings of the server, now and for servers started later; `vim.NIL` brings a default back.
---@param settings table<string, any>
function M.configure(settings)
  config.set({ settings = settings })
  M.define()
  for _, client in ipairs(compat.clients(M.NAME)) do
    local merged = vim.tbl_deep_extend('force', compat.settings(client) or {}, { dg = given(settings) })
    compat.set_settings(client, merged)
    compat.notify(client, 'workspace/didChangeConfiguration', { settings = merged })
  end
end

--- A setting of the server as the client knows it; nil where the server's default holds.
---@param name string
---@return any
function M.setting(name)
  local client = M.of(vim.api.nvim_get_current_buf()) or compat.clients(M.NAME)[1]
  local settings = client and compat.settings(client).dg or config.get().settings
  local value = settings[name]
  if value == vim.NIL then
    return nil
  end
  return value
end

--- Run a command of the server.
---@param command string
---@param arguments any[]
---@param done fun(result: any)
---@return boolean sent False where no server runs.
function M.execute(command, arguments, done)
  local client = M.of(vim.api.nvim_get_current_buf()) or compat.clients(M.NAME)[1]
  return client ~= nil and execute(client, command, arguments, done)
end

--- Offer nothing unasked, in any folder, each of which has a server of its own.
---@param minutes integer 0 ends the pause.
---@param done fun() Called once all servers know.
---@return boolean sent False where no server runs.
function M.snooze(minutes, done)
  local clients = compat.clients(M.NAME)
  local left = #clients
  paused_until = left > 0 and os.time() + 60 * minutes or paused_until
  for _, client in ipairs(clients) do
    execute(client, 'dg.snooze', { minutes }, function()
      left = left - 1
      if left == 0 then
        done()
      end
    end)
  end
  return #clients > 0
end

--- What is known of the server of a buffer.
---@param bufnr integer
---@return dg_lsp.Status|nil
function M.status(bufnr)
  local client = M.of(bufnr)
  return client and statuses[client.id] or not client and ended or nil
end

--- What the server has written to its log, newest last.
---@return string[]
function M.log()
  return log
end

return M
