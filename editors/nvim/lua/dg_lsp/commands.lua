--- `:DgLsp`: one table of subcommands, each with what it takes and what it does.

local attach = require('dg_lsp.attach')
local client = require('dg_lsp.client')
local compat = require('dg_lsp.compat')
local status = require('dg_lsp.status')

local M = {}

local SNOOZE_MINUTES = 30
local MODELS_MS = 500

local function say(message, level)
  vim.notify('dg-lsp: ' .. message, level or vim.log.levels.INFO)
end

--- Say that there is no server where a command was not sent.
---@param sent boolean
local function expect(sent)
  if not sent then
    local is_known = client.status(vim.api.nvim_get_current_buf())
    say(is_known and status.long() or 'No server runs. :DgLsp restart starts one.', vim.log.levels.WARN)
  end
end

--- Run a command of the server, or say that there is none.
local function execute(command, arguments, done)
  expect(client.execute(command, arguments, done))
end

---@param arguments string|nil
---@param default integer|nil
---@return integer|nil
local function whole_number(arguments, default)
  local number = tonumber(arguments or default)
  if not number or number < 0 or number % 1 ~= 0 then
    say(('%s is not a whole number'):format(arguments), vim.log.levels.WARN)
    return nil
  end
  return number
end

---@param lines string[]
---@param name string
local function show_lines(lines, name)
  vim.cmd('botright new')
  vim.bo.buftype, vim.bo.bufhidden, vim.bo.swapfile = 'nofile', 'wipe', false
  vim.api.nvim_buf_set_lines(0, 0, -1, false, lines)
  vim.bo.modifiable = false
  pcall(vim.api.nvim_buf_set_name, 0, name)
  vim.cmd('normal! G')
end

local function set_enabled(enabled)
  client.configure({ enabled = enabled })
  if enabled and not client.of(vim.api.nvim_get_current_buf()) then
    client.enable()
  end
end

local function is_enabled()
  return client.setting('enabled') ~= false
end

local function set_model(model)
  client.configure({ engine = { model = model } })
end

--- Choose among the models that the server knows, by name or from a list.
---@param name string|nil
local function choose_model(name)
  execute('dg.models', {}, function(models)
    for _, model in ipairs(models) do
      if name and (model.name == name or model.model == name) then
        return set_model(model.model)
      end
    end
    if name then
      -- A directory with a checkpoint need not be on the list.
      return set_model(name)
    end
    vim.ui.select(models, {
      prompt = 'Model',
      format_item = function(model)
        return ('%s %s: %s'):format(model.current and '*' or ' ', model.name, model.description)
      end,
    }, function(model)
      if model then
        set_model(model.model)
      end
    end)
  end)
end

---@return string[]
local function model_names()
  local names
  client.execute('dg.models', {}, function(models)
    names = vim.tbl_map(function(model)
      return model.name
    end, models)
  end)
  vim.wait(MODELS_MS, function()
    return names ~= nil
  end, 10)
  return names or {}
end

local function set_steps(steps)
  if not steps then
    say(('at most %s denoising steps'):format(client.setting('maxDenoisingSteps') or "the model's own number of"))
  elseif steps == 'default' then
    client.configure({ maxDenoisingSteps = vim.NIL })
  else
    local number = whole_number(steps)
    if number then
      client.configure({ maxDenoisingSteps = number })
    end
  end
end

local function set_drafts(choice)
  local drafts = choice == 'on' or (choice ~= 'off' and not client.setting('drafts'))
  client.configure({ drafts = drafts })
  say(drafts and 'drafts are shown while a completion is refined' or 'drafts are not shown')
end

local function snooze(minutes)
  local number = whole_number(minutes, SNOOZE_MINUTES)
  if number then
    expect(client.snooze(number, function()
      say(number == 0 and 'the pause is over' or ('no automatic completions for %d minutes'):format(number))
    end))
  end
end

local function explain()
  execute('dg.explain', { vim.uri_from_bufnr(0) }, function(explained)
    local reason = type(explained.reason) == 'string' and explained.reason or ''
    say(('%s. %s'):format(explained.state, reason))
  end)
end

local function restart(what)
  if what == 'engine' then
    execute('dg.restartEngine', {}, say)
  else
    client.restart()
  end
end

---@class dg_lsp.Subcommand
---@field run fun(argument: string|nil)
---@field complete nil|fun(): string[]

local function among(...)
  local choices = { ... }
  return function()
    return choices
  end
end

---@type table<string, dg_lsp.Subcommand>
M.subcommands = {
  enable = {
    run = function()
      set_enabled(true)
    end,
  },
  disable = {
    run = function()
      set_enabled(false)
    end,
  },
  toggle = {
    run = function()
      set_enabled(not is_enabled())
    end,
  },
  trigger = {
    run = function()
      if not attach.trigger() then
        say('nobody can be asked here, see :DgLsp status', vim.log.levels.WARN)
      end
    end,
  },
  snooze = { run = snooze, complete = among('0', '5', '15', '30', '60') },
  model = { run = choose_model, complete = model_names },
  steps = { run = set_steps, complete = among('1', '2', '4', '8', '16', 'default') },
  drafts = { run = set_drafts, complete = among('on', 'off') },
  status = {
    run = function()
      say(status.long())
    end,
  },
  explain = { run = explain },
  restart = { run = restart, complete = among('server', 'engine') },
  log = {
    run = function()
      show_lines(client.log(), 'dg-lsp://log')
    end,
  },
  doctor = {
    run = function()
      local command = vim.list_extend({}, client.command())
      table.insert(command, 'doctor')
      local engine = client.setting('engine') or {}
      for _, name in ipairs({ 'model', 'adapter' }) do
        local chosen = engine[name]
        if type(chosen) == 'string' and chosen ~= '' then
          vim.list_extend(command, { '--' .. name, chosen })
        end
      end
      vim.cmd('botright new')
      compat.terminal(command)
    end,
  },
}

---@return string[]
local function names()
  return vim.fn.sort(vim.tbl_keys(M.subcommands))
end

--- Run `:DgLsp {subcommand} [argument]`; alone it tells the state.
---@param arguments string[]
function M.run(arguments)
  local name = arguments[1] or 'status'
  local subcommand = M.subcommands[name]
  if not subcommand then
    return say(('%s is not a subcommand, see :help :DgLsp'):format(name), vim.log.levels.WARN)
  end
  subcommand.run(arguments[2])
end

--- Complete the command line.
---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local words = vim.split(vim.trim(line), '%s+')
  local at = #words + (lead == '' and 1 or 0)
  local choices = {}
  if at == 2 then
    choices = names()
  elseif at == 3 then
    local subcommand = M.subcommands[words[2]]
    choices = subcommand and subcommand.complete and subcommand.complete() or {}
  end
  return vim.tbl_filter(function(choice)
    return vim.startswith(choice, lead)
  end, choices)
end

return M
