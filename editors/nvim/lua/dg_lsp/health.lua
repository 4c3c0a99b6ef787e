--- `:checkhealth dg_lsp`

local client = require('dg_lsp.client')
local compat = require('dg_lsp.compat')
local config = require('dg_lsp.config')
local status = require('dg_lsp.status')

local M = {}

local health = vim.health or require('health')
local start = health.start or health.report_start
local ok = health.ok or health.report_ok
local info = health.info or health.report_info
local warn = health.warn or health.report_warn
local fail = health.error or health.report_error

local function check_neovim()
  start('dg_lsp: Neovim')
  local version = vim.version()
  local name = ('%d.%d.%d'):format(version.major, version.minor, version.patch)
  if vim.fn.has('nvim-0.7') == 0 then
    fail('Neovim ' .. name .. ' is too old', { '0.7 or newer is needed' })
  elseif compat.has_inline_text then
    ok('Neovim ' .. name)
  else
    ok('Neovim ' .. name .. ': ghost text is drawn over the rest of the line (0.10 pushes it aside)')
  end
  if config.get().display == 'core' and not compat.has_core_client then
    fail("display is 'core', but Neovim " .. name .. ' has no client for in-line completion', { "use 'plugin'" })
  end
end

local function check_command()
  start('dg_lsp: server')
  local command = client.command()
  if vim.fn.executable(command[1]) == 0 then
    fail(('%s cannot be run'):format(command[1]), {
      'install dg-lsp and put it on the PATH, or',
      "name it: require('dg_lsp').setup({ cmd = { '/path/to/dg-lsp' } })",
      'then `:DgLsp restart`',
    })
    return
  end
  ok(('%s: %s'):format(vim.fn.exepath(command[1]), vim.trim(vim.fn.system({ command[1], '--version' }))))
  info('`:DgLsp doctor` looks at the engine and the model')
end

local function check_clients()
  local clients = compat.clients(client.NAME)
  if #clients == 0 then
    warn('no server runs', { 'open a file', 'if that does not help: `:DgLsp restart`, then `:DgLsp log`' })
  end
  for _, running in ipairs(clients) do
    local bufnr = vim.tbl_keys(running.attached_buffers or vim.lsp.get_buffers_by_client_id(running.id))[1]
    local state = bufnr and status.long(bufnr) or 'no buffer'
    local tell = state:find('^dg error') and fail or ok
    tell(('client %d, root %s, %s: %s'):format(
      running.id,
      running.config.root_dir or 'none',
      running.offset_encoding,
      state
    ))
  end
end

local function check_keys()
  start('dg_lsp: keys')
  local keys = config.get().keys
  if not keys then
    return info('no keys are mapped (keys = false)')
  end
  for _, name in ipairs(vim.fn.sort(vim.tbl_keys(keys))) do
    info(('%s: %s'):format(name, keys[name] or 'not mapped'))
  end
end

--- Say what is there, what is not, and what to do about it.
function M.check()
  check_neovim()
  check_command()
  check_clients()
  check_keys()
end

return M
